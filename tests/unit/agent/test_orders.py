"""The next step about an order, for anything that may be known of it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent import orders as to
from agent.keys import RESEND_MS
from agent.modes import MODES, NO_WRITES, Standing
from agent.orders import ATTEMPTS, Known, Sent, next_step
from agent.wire import VenuePosition
from fleet.core.decision import Postpone, Retry
from fleet.core.errors import NotNowError, RefusedError
from fleet.core.failure import Failure
from fleet.core.payloads import OrderRequested
from fleet.store.positions import Position

NOW, QUIET_MS, PAIR, KEY = 1_750_000_000_000, 60_000, "BTC/USDT", "k" * 32
ORDER = OrderRequested(PAIR, "long", Decimal(50), Decimal(3), NOW - 1_000, KEY)
OURS = VenuePosition("pos_1", PAIR, "long", Decimal(50), Decimal(3), idempotency_key=KEY)
ENDS = (
    to.Opened, to.Remember, to.Spent, to.Skip, Postpone, to.Forbid, to.Late, to.GiveUp,
    Retry, to.NeverKnown, to.Strange,
)  # fmt: skip
STATES = st.sampled_from(["reserved", "open", "closing", "closed", "released"])
LISTED = st.lists(
    st.sampled_from([
        OURS,
        VenuePosition("pos_2", "ETH/USDT", "long", idempotency_key="other"),
        msgspec.structs.replace(OURS, position_id="pos_3", size_usdc=Decimal(500)),
    ]),
    max_size=2,
).map(tuple)  # fmt: skip


def place(
    state: Any, way: str = "long", ts_ms: int = NOW - 1_000, ago: int = 0, asked: int = NOW
) -> Position:
    """A row of the book."""
    size, leverage = Decimal(50), Decimal(3)
    row = Position(KEY, "agent", PAIR, way, size, leverage, ts_ms, state, opened_ms=NOW - ago)
    return msgspec.structs.replace(row, asked_ms=asked)


KNOWN = st.builds(
    Known,
    order=st.just(ORDER),
    now_ms=st.just(NOW),
    quiet_ms=st.just(QUIET_MS),
    standing=st.builds(Standing, st.sampled_from(MODES), st.sampled_from(["", NO_WRITES])),
    write_api=st.sampled_from(["closed", "half_open", "open"]),
    attempt=st.integers(1, ATTEMPTS + 1),
    is_stale=st.booleans(),
    is_paused=st.booleans(),
    fault=st.none() | st.just("over the limits"),
    place=st.none()
    | st.builds(
        place,
        STATES,
        st.sampled_from(["long", "short"]),
        ago=st.sampled_from([0, 61_000, RESEND_MS + 1]),
        asked=st.sampled_from([NOW, NOW - QUIET_MS]),
    ),
    is_new=st.booleans(),
    held=st.none()
    | st.builds(
        place,
        st.sampled_from(["reserved", "open", "closing"]),
        st.sampled_from(["long", "short"]),
        st.sampled_from([NOW - 9_000, NOW]),
    ),
    no_place=st.sampled_from(["", "limit", "pair_busy", "late", "spent"]),
    listed=st.none() | LISTED,
    unheard=st.sampled_from(["", "no answer"]),
    sent=st.none() | st.builds(Sent, st.none() | st.just(OURS), st.booleans()),
    refused=st.none() | st.sampled_from([RefusedError("no"), NotNowError("later")]),
    lost=st.none() | st.just(Failure("network", "NetworkError", "no answer", "")),
)


@given(KNOWN)
def test_nothing_is_sent_that_must_not_be(known: Known) -> None:
    """Not without a place of its own, before looking, when found, stale, too old or forbidden."""
    if not isinstance(next_step(known), to.Send):
        return
    assert known.place is not None
    assert known.place.state == "reserved"
    assert known.sent is known.refused is known.lost is None
    assert not known.unheard
    standing = known.standing
    assert standing.mode == "full" or (standing.mode, standing.reason) == ("read_only", NO_WRITES)
    if known.is_new:
        return
    assert known.listed is not None
    assert all(one.idempotency_key != KEY for one in known.listed)
    assert not known.is_stale
    assert not known.is_paused
    assert known.fault is None
    assert known.attempt <= ATTEMPTS
    assert known.place.direction == ORDER.direction
    assert NOW - known.place.opened_ms <= RESEND_MS


@given(KNOWN)
def test_no_place_is_taken_that_must_not_be(known: Known) -> None:
    """Not over the limits, stale, paused, or in a mode that opens nothing; a flip closes first."""
    if not isinstance(next_step(known), to.Reserve):
        return
    assert known.place is None or known.place.state == "released"
    assert (known.held, known.fault, known.no_place) == (None, None, "")
    assert not known.is_stale
    assert not known.is_paused
    assert known.standing.mode in ("full", "read_only")


@given(KNOWN)
def test_a_place_is_given_back_only_where_nothing_can_be_on_its_way(known: Known) -> None:
    """After a refusal or a vain search: at once in the first attempt, else when it is quiet."""
    if not isinstance(next_step(known), to.GiveUp) or known.is_new:
        return
    assert known.place is not None
    assert NOW - known.place.asked_ms >= QUIET_MS


@given(KNOWN)
def test_it_comes_to_an_end(known: Known) -> None:
    """Each step that is no end brings knowledge after which it is not taken again."""
    for _ in range(6):
        match step := next_step(known):
            case to.Look():
                known = msgspec.structs.replace(known, listed=())
            case to.Close():
                known = msgspec.structs.replace(known, held=None)
            case to.Reserve():
                known = msgspec.structs.replace(known, place=place("reserved"), is_new=True)
            case to.Send():
                known = msgspec.structs.replace(known, sent=Sent(OURS), listed=None)
            case _:
                assert isinstance(step, ENDS)
                return
    raise AssertionError(f"no end: {known}")
