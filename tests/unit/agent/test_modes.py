"""Modes: down at once, up slowly, shut until a person says otherwise."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent import modes
from agent.modes import MODES, Health, Limits, Standing, diagnose, is_below, ordered, step

LIMITS = Limits()
WELL = Health(balance=Decimal(100), feed_age_s=1.0)
HEALTH = st.builds(
    Health,
    balance=st.none() | st.decimals(0, 100, places=2),
    drawdown=st.decimals(0, 1, places=3),
    feed_age_s=st.none() | st.floats(0, 200),
    write_api=st.sampled_from(["closed", "half_open", "open"]),
)


@pytest.mark.parametrize(
    ("health", "mode"),
    [
        (Health(), "full"),
        (WELL, "full"),
        (Health(balance=Decimal("0.99")), "shutdown"),
        (Health(balance=Decimal(1)), "full"),
        (Health(drawdown=Decimal("0.2")), "full"),
        (Health(drawdown=Decimal("0.2001")), "shutdown"),
        (Health(feed_age_s=60.0), "full"),
        (Health(feed_age_s=60.1), "observation"),
        (Health(write_api="open"), "read_only"),
        (Health(write_api="half_open"), "read_only"),
        (Health(feed_age_s=99.0, write_api="open"), "observation"),
        (Health(feed_age_s=99.0, balance=Decimal(0)), "shutdown"),
    ],
)
def test_health_has_its_mode(health: Health, mode: str) -> None:
    """Each limit, and the worst of them; what nobody knows is not held against the agent."""
    assert diagnose(health, LIMITS)[0] == mode
    assert step(Standing(), health, LIMITS, 1_000).mode == mode, "down at once"


def test_it_goes_up_after_a_steady_time_and_not_while_it_flickers() -> None:
    """Ten seconds of better health in a row; one bad look begins them anew."""
    now = step(Standing(), Health(feed_age_s=61.0), LIMITS, 1_000)
    for at_ms in (2_000, 11_999):
        now = step(now, WELL, LIMITS, at_ms)
        assert now.mode == "observation"
    now = step(now, Health(feed_age_s=61.0), LIMITS, 12_000)
    now = step(now, WELL, LIMITS, 13_000)
    assert step(now, WELL, LIMITS, 22_999).mode == "observation"
    assert step(now, WELL, LIMITS, 23_000).mode == "full"


def test_it_goes_up_to_what_was_allowed_all_the_time() -> None:
    """Prices for ten seconds, a venue that is well for one: close only, full after ten more."""
    now = step(Standing(), Health(feed_age_s=61.0, write_api="open"), LIMITS, 1_000)
    now = step(now, Health(feed_age_s=1.0, write_api="open"), LIMITS, 2_000)
    now = step(now, WELL, LIMITS, 11_000)
    assert now.mode == "observation"
    now = step(now, WELL, LIMITS, 12_000)
    assert (now.mode, now.reason) == ("read_only", modes.NO_WRITES)
    now = step(now, WELL, LIMITS, 13_000)
    assert step(now, WELL, LIMITS, 22_999).mode == "read_only"
    assert step(now, WELL, LIMITS, 23_000) == Standing(since_ms=23_000)


@given(HEALTH, st.integers(0, 10**9))
def test_a_shutdown_stays_whatever_health_says(health: Health, passed_ms: int) -> None:
    """Only an operator ends it."""
    shut = step(Standing(), Health(drawdown=Decimal("0.5")), LIMITS, 1_000)
    assert step(shut, health, LIMITS, 1_000 + passed_ms) == shut
    assert ordered(shut, "full", "me", "seen", 2_000).mode == "full"


@given(HEALTH, st.sampled_from(MODES))
def test_nothing_is_freer_than_an_operator_allows(health: Health, ceiling: modes.Mode) -> None:
    """Now, and after any time in any health."""
    now = ordered(Standing(), ceiling, "me", "why", 1_000)
    for at_ms in (2_000, 60_000, 120_000):
        now = step(now, health, LIMITS, at_ms)
        assert not is_below(ceiling, now.mode)


def test_an_operator_s_read_only_is_not_the_breaker_s() -> None:
    """Where both ask for the same mode the operator's word is the reason: no probe is sent."""
    now = ordered(Standing(), "read_only", "me", "holidays", 1_000)
    assert step(now, Health(write_api="half_open"), LIMITS, 2_000).reason == modes.OPERATOR


class Lives(RuleBasedStateMachine):
    """Any health, any operator, any time between looks; twins look at what is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000
        self.standing = Standing()
        self.better_since: int | None = None
        self.allowed: list[modes.Mode] = []

    @rule(health=HEALTH, passed_ms=st.integers(0, 15_000))
    def look(self, health: Health, passed_ms: int) -> None:
        """One look: never freer than health allows, never up before its time."""
        self.now_ms += passed_ms
        was = self.standing
        self.standing = step(was, health, LIMITS, self.now_ms)
        wanted = diagnose(health, LIMITS)[0]
        wanted = was.ceiling if is_below(was.ceiling, wanted) else wanted
        if was.mode == "shutdown":
            assert self.standing == was
            return
        assert not is_below(wanted, self.standing.mode)
        is_better = is_below(was.mode, wanted)
        if is_better and self.better_since is None:
            self.better_since, self.allowed = self.now_ms, []
        elif not is_better:
            self.better_since = None
        self.allowed.append(wanted)
        if is_below(was.mode, self.standing.mode):
            assert self.standing.mode == max(self.allowed, key=MODES.index)
            assert self.better_since is not None
            assert self.now_ms - self.better_since >= LIMITS.steady_s * 1000
            self.better_since = None

    @rule(mode=st.sampled_from(MODES))
    def say(self, mode: modes.Mode) -> None:
        """An operator sets it."""
        self.standing = ordered(self.standing, mode, "me", "why", self.now_ms)
        self.better_since = None

    @invariant()
    def a_second_look_at_once_changes_nothing_more(self) -> None:
        """Replicas that look at the same moment come to the same end."""
        once = step(self.standing, WELL, LIMITS, self.now_ms)
        assert step(once, WELL, LIMITS, self.now_ms) == once


Lives.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLives = Lives.TestCase
