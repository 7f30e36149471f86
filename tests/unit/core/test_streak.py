"""A streak: the same failure again and again, without a success in between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.core.streak import Streaks

STEPS = st.lists(st.sampled_from(["ok", "a", "b"]), max_size=40)


@given(STEPS, st.integers(1, 6))
def test_a_streak_is_complete_after_so_many_alike(steps: list[str], limit: int):
    """It is complete exactly where the last `limit` outcomes since the last one are the same."""
    streaks, run = Streaks(limit), 0
    for before, step in zip(["", *steps], steps, strict=False):
        if step == "ok":
            streaks.succeeded("h")
            run = 0
            continue
        run = run + 1 if step == before else 1
        complete = streaks.failed("h", step)
        assert complete == (run == limit)
        if complete:
            run = 0


def test_names_are_counted_apart():
    """One handler's failures say nothing of another."""
    streaks = Streaks(2)
    assert not streaks.failed("a", "x")
    assert not streaks.failed("b", "x")
    streaks.succeeded("b")
    assert streaks.failed("a", "x")


def test_without_a_limit_nothing_is_a_streak():
    """0 switches it off."""
    streaks = Streaks(0)
    assert not any(streaks.failed("a", "x") for _ in range(100))
