"""The breaker: what opens it, who probes, what closes it, over any history."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleet.core import breaker
from fleet.core.breaker import CLOSED, Breaker, BreakerPolicy
from fleet.core.errors import LogicError

POLICY = BreakerPolicy(failures=5, open_ms=60_000, probe_ms=30_000)
CALLERS = st.sampled_from(["a", "b", "c"])


def fail(times: int, at_ms: int = 1_000) -> Breaker:
    """A breaker after so many failures in a row."""
    now = CLOSED
    for _ in range(times):
        now = breaker.failed(now, "a", POLICY, at_ms)
    return now


def test_five_failures_in_a_row_open_it_for_a_minute() -> None:
    """Four do not, and a success in between begins the count anew."""
    assert breaker.state(fail(4), POLICY, 1_000) == "closed"
    broken = breaker.succeeded(fail(4), "b")
    assert breaker.failed(broken, "a", POLICY, 1_000).failures == 1
    opened = fail(5)
    assert breaker.state(opened, POLICY, 60_999) == "open"
    assert breaker.ask(opened, "a", POLICY, 31_000).wait_ms == 30_000
    assert breaker.state(opened, POLICY, 61_000) == "half_open"


def test_one_probe_at_a_time_decides() -> None:
    """The second caller waits; the prober's answer closes it, its failure opens it anew."""
    turn = breaker.ask(fail(5), "a", POLICY, 61_000)
    assert turn.wait_ms == 0
    assert breaker.ask(turn.breaker, "b", POLICY, 62_000).wait_ms == 29_000
    assert breaker.succeeded(turn.breaker, "b") == turn.breaker, "an old answer proves nothing"
    assert breaker.succeeded(turn.breaker, "a") == CLOSED
    again = breaker.failed(turn.breaker, "a", POLICY, 70_000)
    assert breaker.state(again, POLICY, 129_999) == "open"


def test_a_prober_that_died_is_followed_by_another() -> None:
    """After its time the probe is free; after a call that says nothing it is free at once."""
    turn = breaker.ask(fail(5), "a", POLICY, 61_000)
    assert breaker.ask(turn.breaker, "b", POLICY, 91_000).wait_ms == 0
    free = breaker.withdrawn(turn.breaker, "a")
    assert breaker.ask(free, "b", POLICY, 62_000).wait_ms == 0


@pytest.mark.parametrize("field", ["failures", "open_ms", "probe_ms"])
def test_a_policy_is_of_positive_numbers(field: str) -> None:
    """A breaker that never opens, or never closes, is a mistake."""
    with pytest.raises(LogicError):
        BreakerPolicy(**{field: 0})


class Histories(RuleBasedStateMachine):
    """Callers that ask, answer and die in any order, against a model that only counts."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000
        self.breaker = CLOSED
        self.calling: set[str] = set()
        self.in_a_row = 0
        self.opened_ms = 0
        self.probing: dict[str, int] = {}

    @rule(ms=st.integers(1, 40_000))
    def time_passes(self, ms: int) -> None:
        """The clock goes on."""
        self.now_ms += ms

    @rule(caller=CALLERS)
    def ask(self, caller: str) -> None:
        """It goes while closed; while open not before its time, and then one at a time."""
        turn = breaker.ask(self.breaker, caller, POLICY, self.now_ms)
        others = [at for who, at in self.probing.items() if who != caller]
        if not self.opened_ms:
            assert turn.wait_ms == 0
        elif self.now_ms < self.opened_ms + POLICY.open_ms:
            assert turn.wait_ms == self.opened_ms + POLICY.open_ms - self.now_ms
        else:
            busy = any(self.now_ms < at + POLICY.probe_ms for at in others)
            assert (turn.wait_ms > 0) == busy
            if not busy:
                self.probing = {caller: self.now_ms}
        assert turn.wait_ms <= max(POLICY.open_ms, POLICY.probe_ms)
        if not turn.wait_ms:
            self.breaker = turn.breaker
            self.calling.add(caller)

    @precondition(lambda self: self.calling)
    @rule(data=st.data(), is_well=st.booleans())
    def answer(self, data: st.DataObject, is_well: bool) -> None:
        """A call ends, whenever it was begun."""
        caller = data.draw(st.sampled_from(sorted(self.calling)))
        self.calling.discard(caller)
        decides = not self.opened_ms or caller in self.probing
        if is_well:
            self.breaker = breaker.succeeded(self.breaker, caller)
        else:
            self.breaker = breaker.failed(self.breaker, caller, POLICY, self.now_ms)
        if not decides:
            return
        self.in_a_row = 0 if is_well else self.in_a_row + 1
        was_open, self.probing = bool(self.opened_ms), {}
        opens = not is_well and (was_open or self.in_a_row >= POLICY.failures)
        self.opened_ms = self.now_ms if opens else 0

    @precondition(lambda self: self.calling)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        """A caller never answers; its probe runs out by itself."""
        self.calling.discard(data.draw(st.sampled_from(sorted(self.calling))))

    @invariant()
    def is_as_counted(self) -> None:
        """Open exactly where the model says so."""
        assert self.breaker.opened_ms == self.opened_ms
        assert self.opened_ms or self.breaker.failures == self.in_a_row


Histories.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestHistories = Histories.TestCase
