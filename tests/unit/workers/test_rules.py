"""The pure rules of the runtime: effects, lanes, placement, patterns."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.decision import Ack, Decision, Expire, Fail, Postpone, Retry
from fleet.core.failure import failure
from fleet.store import Effect
from workers.context import Context, Effecting
from workers.effects import outcome_of
from workers.middleware import Call, compose
from workers.placement import SPREAD_S, best, delay_s, rank
from workers.process import in_lane
from workers.registry import Service

BROKEN = failure("network", "TimeoutError", "no answer")
BEFORE = Effect("k", "order", "unknown", "w", 0, 1, 0, "", "", "", 0)


@pytest.mark.parametrize(
    ("decision", "untouched", "before", "state"),
    [
        (Ack(), False, None, "done"),
        (Ack(skipped="the limit is reached"), False, None, "none"),
        (Ack(skipped="spent"), False, BEFORE, "failed"),
        (Retry(1, BROKEN), False, None, "unknown"),
        (Retry(1, BROKEN), True, None, "reserved"),
        (Retry(1, BROKEN), True, BEFORE, "unknown"),
        (Fail(BROKEN), False, None, "unknown"),
        (Fail(BROKEN), True, None, "failed"),
        (Fail(BROKEN), True, BEFORE, "unknown"),
        (Postpone(1), False, None, "reserved"),
        (Postpone(1), False, BEFORE, "unknown"),
        (Expire("old"), False, None, "failed"),
    ],
)
def test_an_effect_is_unknown_unless_it_is_known(
    decision: Decision, untouched: bool, before: Effect | None, state: str
):
    """Only an answer, or the certainty that nothing was sent, settles an effect."""
    effect = Effecting("k", before, "w e")
    effect.untouched = untouched
    result = outcome_of(effect, decision)
    assert (result.state, result.holder) == (state, "w e")


@given(st.floats(0, 1e6))
def test_a_lane_never_waits(delay: float):
    """What another queue would try later, a lane fails."""
    assert in_lane(Retry(delay, BROKEN)) == Fail(BROKEN)
    assert isinstance(in_lane(Postpone(delay)), Fail)
    assert in_lane(Ack()) == Ack()


def test_lanes_spread_and_only_those_of_a_lost_worker_move():
    """Ranks share lanes out; when a worker goes, nobody else's lane changes hands."""
    lanes = [f"pf.trading.agent.ticks.{number}" for number in range(256)]
    workers = [f"host-{number}" for number in range(4)]

    def owners(alive: list[str]) -> dict[str, str]:
        return {lane: best(alive, lane) for lane in lanes}

    before, after = owners(workers), owners(workers[1:])
    assert min(Counter(before.values()).values()) > 32
    assert all(after[lane] == owner for lane, owner in before.items() if owner != workers[0])


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_worker_waits_less_for_the_lanes_it_ranks_higher(worker: str, lane: str):
    """The delay is bounded, and shrinks with the rank."""
    assert 0 < delay_s(worker, lane) <= SPREAD_S
    assert (delay_s(worker, lane) < SPREAD_S / 2) == (rank(worker, lane) > (1 << 24) / 2)


def test_the_nearest_pattern_wins():
    """A type's own handler goes before its domain's, and that before the one for all."""
    service = Service("test.patterns")
    for pattern in ("*", "wallet.*", "wallet.low_balance"):
        service.handler(pattern)(lambda _context, _payload: None)
    found = [service.find(kind) for kind in ("wallet.low_balance", "wallet.other", "job.failed")]
    assert [handler.pattern for handler in found if handler] == [
        "wallet.low_balance",
        "wallet.*",
        "*",
    ]
    assert Service("test.none").find("job.failed") is None


def test_middlewares_fold_the_first_one_outermost():
    """Each middleware sees the call on its way in and the result on its way out."""
    story: list[str] = []

    def named(name: str) -> Any:
        def middleware(call: Call) -> Call:
            def inner(handler: Any, context: Any, payload: Any) -> Any:
                story.append(f"{name} in")
                result = call(handler, context, payload)
                story.append(f"{name} out")
                return result

            return inner

        return middleware

    service = Service("test.fold")

    @service.handler("a.b")
    def handle(_: Context, payload: Any) -> Ack:
        story.append(payload)
        return Ack()

    handler = service.handlers["a.b"]
    context: Any = None
    assert compose([named("one"), named("two")])(handler, context, "handled") == Ack()
    assert story == ["one in", "two in", "handled", "two out", "one out"]
