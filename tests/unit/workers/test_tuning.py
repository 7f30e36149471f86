"""How many deliveries a worker wants in hand: the rule, and the setting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.errors import SettingsError
from fleet.settings import load
from workers.settings import AUTO_AHEAD_S, AUTO_MOST, WorkerSettings, least_prefetch
from workers.tuning import aim, is_worth_it

COSTS = st.floats(min_value=0, max_value=10_000)
SLOTS = st.integers(min_value=1, max_value=10_000)


@given(COSTS, SLOTS)
def test_it_stays_within_its_bounds(cost_s: float, concurrency: int):
    """Every slot has one that runs and one that waits; nobody hoards more than 400."""
    least = least_prefetch(concurrency)
    assert 2 * concurrency == least
    assert least <= aim(cost_s, concurrency) <= max(AUTO_MOST, least)


@given(COSTS, COSTS, SLOTS)
def test_slower_handlers_want_no_more(one: float, other: float, concurrency: int):
    """The longer an event takes the less is in hand."""
    assert aim(max(one, other), concurrency) <= aim(min(one, other), concurrency)


@given(st.floats(min_value=0.001, max_value=1), st.integers(min_value=1, max_value=50))
def test_what_waits_is_a_quarter_of_a_second_s_work(cost_s: float, concurrency: int):
    """Between the bounds, beside what runs."""
    wanted = aim(cost_s, concurrency)
    if least_prefetch(concurrency) < wanted < AUTO_MOST:
        assert AUTO_AHEAD_S <= (wanted - concurrency) * cost_s < AUTO_AHEAD_S + cost_s * 1.001


@given(COSTS, st.floats(min_value=0.84, max_value=1.2), SLOTS)
def test_it_does_not_follow_every_breeze(cost_s: float, breeze: float, concurrency: int):
    """Handlers a fifth slower or quicker than before change nothing."""
    assert not is_worth_it(aim(cost_s, concurrency), aim(cost_s * breeze, concurrency))


@pytest.mark.parametrize(("now", "wanted"), [(20, 400), (400, 20), (100, 151)])
def test_what_differs_by_more_than_half_is_followed(now: int, wanted: int):
    """Up and down."""
    assert is_worth_it(now, wanted)


def test_the_setting_is_a_number_or_auto(monkeypatch: pytest.MonkeyPatch):
    """Auto begins with little: who hoards cannot give back without a trace."""
    monkeypatch.setenv("CONCURRENCY", "7")
    monkeypatch.setenv("PREFETCH", "auto")
    assert load(WorkerSettings).first_prefetch == 14
    monkeypatch.setenv("PREFETCH", "90")
    assert load(WorkerSettings).first_prefetch == 90
    for wrong in ("0", "some"):
        monkeypatch.setenv("PREFETCH", wrong)
        with pytest.raises(SettingsError, match="PREFETCH is wrong"):
            load(WorkerSettings)
