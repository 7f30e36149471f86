"""Lost answers, crashes and keys that were used before: one position, and the book knows it."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agent import state
from agent.keys import RESEND_MS
from agent.modes import Standing
from agent.state import AgentState
from fleet.core.decision import Ack, Expire, Fail, Postpone, Retry
from fleet.store import Store

BTC, ETH = "BTC/USDT", "ETH/USDT"
QUIET_MS = 60_000


@pytest.mark.parametrize("idempotency", [True, False])
async def test_a_lost_answer_is_looked_up(office: Any, idempotency: bool) -> None:
    """Executed, answer lost: the effect is unknown, the next attempt finds the position."""
    at = await office(faults="lost_answers=1", idempotency=idempotency)
    event = at.wish(BTC, "long")
    decision = await at.run(event)
    assert isinstance(decision, Retry)
    assert decision.failure.error_class == "network"
    assert (await at.effect(event)).state == "unknown"
    assert await at.book() == {BTC: ("long", "reserved")}
    assert await at.run(event, attempt=2) == Ack()
    assert await at.book() == {BTC: ("long", "open")}
    assert at.done() == {"open": 1}
    assert (await at.effect(event)).state == "done"


async def test_while_the_outcome_is_unknown_the_place_is_taken(office: Any) -> None:
    """Another order of the pair waits, one of a fourth pair finds no room."""
    at = await office(faults="lost_answers=1", agent={"max_positions": 1})
    await at.trade(BTC, "long")
    assert isinstance(await at.trade(BTC, "short", 1), Postpone)
    assert (await at.trade(ETH, "long")).skipped == "limit"


async def test_server_errors_are_tried_four_times_and_then_asked_about(office: Any) -> None:
    """503 four times: once nothing can be on its way the venue is asked, and it failed for sure."""
    at = await office(faults="errors=1")
    event = at.wish(BTC, "long")
    for attempt in (1, 2, 3):
        decision = await at.run(event, attempt=attempt, at=at.now)
        assert isinstance(decision, Retry)
        assert decision.delay <= 30
    last = await at.run(event, attempt=4, at=at.now)
    assert isinstance(last, Retry)
    assert last.delay * 1000 > QUIET_MS
    assert at.sandbox.summary()["faults"]["calls"] == 4
    at.sandbox._faults._rates["errors"] = 0.0
    end = await at.run(event, attempt=5, at=at.now + 5_000 + int(last.delay * 1000))
    assert isinstance(end, Fail)
    assert at.done() == {}, "the fifth delivery only asks"
    assert await at.book() == {}
    assert (await at.effect(event)).state == "failed"
    assert await at.run(event, replay=1) == Ack()
    assert at.done() == {"open": 1}


async def test_the_last_attempt_s_lost_answer_is_found(office: Any) -> None:
    """Executed, and no attempt left: the venue is asked all the same, and the book knows it."""
    at = await office(faults="lost_answers=1")
    event = at.wish(BTC, "long")
    waits = await at.run(event, attempt=4, at=at.now)
    assert isinstance(waits, Retry)
    assert await at.run(event, attempt=5, at=at.now + int(waits.delay * 1000)) == Ack()
    assert await at.book() == {BTC: ("long", "open")}
    assert at.done() == {"open": 1}


async def test_it_is_quiet_once_nothing_can_come_since_it_was_sent(
    office: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flip that took 30 s to close sent its order late: its place is not given back before."""
    at = await office(faults="errors=1")
    event = at.wish(BTC, "long")
    with monkeypatch.context() as patch:
        patch.setattr("fleet.clock.now_ms", lambda: at.now + 30_000)
        await at.run(event, attempt=4, at=at.now)
    at.sandbox._faults._rates["errors"] = 0.0
    assert isinstance(await at.run(event, attempt=5, at=at.now + QUIET_MS + 1_000), Postpone)
    assert await at.book() == {BTC: ("long", "reserved")}
    assert isinstance(await at.run(event, attempt=5, at=at.now + QUIET_MS + 30_000), Fail)
    assert await at.book() == {}


@pytest.mark.parametrize("idempotency", [True, False])
async def test_a_crash_between_answer_and_commit_opens_once(
    office: Any,
    idempotency: bool,
) -> None:
    """The worker dies with the answer in hand; the redelivery finds what it did."""
    at = await office(idempotency=idempotency)
    event = at.wish(BTC, "long")
    await at.run(event, crash=True)
    assert isinstance(await at.run(event), Postpone), "the dead worker's claim is respected"
    assert await at.run(event, at=at.now + 60_000) == Ack()
    assert at.done() == {"open": 1}
    assert await at.book() == {BTC: ("long", "open")}


async def test_a_crash_between_reserve_and_call_is_gone_on_with(
    office: Any, floor: SimpleNamespace
) -> None:
    """The redelivery finds its own reservation, learns that nothing is open, and opens."""
    at = await office(agent={"max_positions": 1})
    event = at.wish(BTC, "long")
    at.desk.venue._url, url = "http://127.0.0.1:9", at.desk.venue._url
    await at.run(event, crash=True)
    at.desk.venue._url = url
    assert await at.book() == {BTC: ("long", "reserved")}
    assert await at.run(event, at=floor.now() + 60_000) == Ack()
    assert at.done() == {"open": 1}


async def test_a_shutdown_in_the_middle_of_a_flip_opens_nothing(
    office: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mode changes while the venue closes the long: the short is not opened any more."""
    at = await office()
    await at.trade(BTC, "long")
    venue, close = at.desk.venue, at.desk.venue.close

    async def slowly(position_id: str, _: Any) -> Any:
        closed = await close(position_id)
        at.desk.watch.state = AgentState(Standing("shutdown", "the drawdown", at.now))
        return closed

    monkeypatch.setattr(venue, "close", slowly)
    assert "shutdown" in (await at.trade(BTC, "short", 1)).skipped
    assert (await at.venue(), await at.book()) == ({}, {})


async def test_a_crash_while_closing_is_gone_on_with(office: Any) -> None:
    """The flip that died after its close: closed once, opened once."""
    at = await office()
    await at.trade(BTC, "long")
    flip = at.wish(BTC, "short", 1)
    at.sandbox._faults._rates["lost_answers"] = 1.0
    assert isinstance(await at.run(flip), Retry)
    assert await at.book() == {BTC: ("long", "closing")}
    at.sandbox._faults._rates["lost_answers"] = 0.0
    assert await at.run(flip, attempt=2) == Ack()
    assert at.done() == {"open": 2, "close": 1}
    assert await at.book() == {BTC: ("short", "open")}


async def test_a_closing_is_finished_even_where_its_order_expires(office: Any) -> None:
    """The flip came back too late to trade: its close is completed, nothing is opened."""
    at = await office(faults="lost_answers=0")
    await at.trade(BTC, "long")
    flip = at.wish(BTC, "short", 1)
    at.sandbox._faults._rates["lost_answers"] = 1.0
    await at.run(flip)
    at.sandbox._faults._rates["lost_answers"] = 0.0
    assert isinstance(await at.run(flip, attempt=2, at=at.now + 125_000), Expire)
    assert await at.book() == {}
    assert await at.venue() == {}


async def test_409_with_an_open_original_is_the_original(office: Any) -> None:
    """A store that lost its memory books what the venue remembers."""
    at = await office()
    event = at.wish(BTC, "long")
    made = await at.desk.venue.open(at.order(BTC, "long", at.now))
    assert await at.run(event) == Ack()
    assert (await at.place(event)).venue_id == made.position.position_id
    assert at.done() == {"open": 1}


async def test_409_with_a_closed_original_is_a_spent_minute(office: Any) -> None:
    """No position is open, what it gained is asked for, and the key is not used again."""
    at = await office()
    event = at.wish(BTC, "long")
    made = await at.desk.venue.open(at.order(BTC, "long", at.now))
    await at.desk.venue.close(made.position.position_id)
    told = await at.runner.chain(event)
    assert [kind for kind, _ in told] == ["order.requested", "order.close_requested"]
    assert told[0][1].skipped == "spent"
    assert await at.book() == {}
    assert (await at.place(event)).pnl == Decimal(0), "the venue told what it gained"
    assert at.done() == {"open": 1, "close": 1}
    assert await at.trade(BTC, "short", 1) == Ack()


async def test_a_key_of_another_order_is_refused(office: Any) -> None:
    """409 with a short that is over, where a long was asked for, is nobody's success."""
    at = await office()
    made = await at.desk.venue.open(at.order(BTC, "short", at.now, key="shared"))
    await at.desk.venue.close(made.position.position_id)
    event = at.wish(BTC, "long", key="shared")
    decision = await at.run(event)
    assert isinstance(decision, Fail)
    assert "another order" in decision.failure.message
    assert (await at.effect(event)).state == "failed"
    assert await at.book() == {}


async def test_what_is_open_under_a_key_and_not_as_ordered_is_not_lost_sight_of(
    office: Any, post: Any
) -> None:
    """409 with a short that is open: the order failed, and the book has what the venue has."""
    at = await office()
    await at.desk.venue.open(at.order(BTC, "short", at.now, key="shared"))
    event = at.wish(BTC, "long", key="shared")
    decision = await at.run(event)
    assert isinstance(decision, Fail)
    assert decision.failure.error_type == "StrangePosition"
    assert await at.book() == {BTC: ("short", "open")}
    assert [one.payload["name"] for one in post.events.values()] == ["book_differs"]


async def test_an_old_unknown_order_is_never_sent_again(office: Any) -> None:
    """After the venue's 24 hours its positions decide; a person is told; the place is free."""
    at = await office(faults="errors=1")
    event = at.wish(BTC, "long")
    await at.run(event)
    at.sandbox._faults._rates["errors"] = 0.0
    decision = await at.run(event, attempt=2, at=at.now + RESEND_MS + 60_000)
    assert isinstance(decision, Fail)
    assert decision.failure.error_type == "UnknownOutcome"
    assert (await at.effect(event)).state == "unknown"
    assert at.done() == {}
    assert await at.book() == {}
    assert (await at.place(event)).presumed == 50
    later = at.now + RESEND_MS + 120_000
    assert (await at.run(event, replay=1, at=later)).skipped == "spent"


async def test_an_old_unknown_order_that_is_open_is_booked(office: Any) -> None:
    """However late: what the venue lists under the key is ours."""
    at = await office(faults="lost_answers=1")
    event = at.wish(BTC, "long")
    await at.run(event)
    assert await at.run(event, attempt=2, at=at.now + RESEND_MS + 60_000) == Ack()
    assert await at.book() == {BTC: ("long", "open")}


async def test_a_stale_unknown_order_is_let_go_only_when_it_is_quiet(office: Any) -> None:
    """Too old to trade: first nothing may be on its way, then the place is given back."""
    at = await office(faults="errors=1")
    event = at.wish(BTC, "long")
    await at.run(event, at=at.now)
    at.sandbox._faults._rates["errors"] = 0.0
    late = at.now + 121_000
    assert isinstance(await at.run(event, attempt=2, at=late), Expire)
    assert await at.book() == {}
    other = at.event(at.order(ETH, "long", at.now), ts=at.now - 100_000)
    at.sandbox._faults._rates["errors"] = 1.0
    await at.run(other, at=at.now)
    at.sandbox._faults._rates["errors"] = 0.0
    waits = await at.run(other, attempt=2, at=at.now + 25_000)
    assert isinstance(waits, Postpone)
    assert waits.delay == pytest.approx(36.0, abs=5), "until the first can come no more"
    then = at.now + 25_000 + int(waits.delay * 1000)
    assert isinstance(await at.run(other, attempt=2, at=then), Expire)
    assert at.done() == {}
    assert await at.book() == {}


async def test_a_position_that_the_venue_forgot_does_not_block_its_pair(office: Any) -> None:
    """Closing answers 404 and the list has no such position: the book lets go of it."""
    at = await office(agent={"max_drawdown": 1})
    await at.trade(BTC, "long")
    known = at.sandbox._venue
    known._positions.clear()
    known._open.clear()
    assert await at.trade(BTC, "short", 1) == Ack()
    assert await at.book() == {BTC: ("short", "open")}


@pytest.mark.parametrize("fault", ["", "lost_answers=1"])
async def test_the_endpoint_that_tells_an_id_only(office: Any, fault: str) -> None:
    """With the key in the header: the position is found in the list, also after a lost answer."""
    at = await office(agent={"order_endpoint": "trade"}, faults=fault)
    event = at.wish(BTC, "long")
    decision = await at.run(event)
    if fault:
        assert isinstance(decision, Retry)
        decision = await at.run(event, attempt=2)
    assert decision == Ack()
    place = await at.place(event)
    assert (place.state, place.venue_id[:4], place.entry_price) == ("open", "pos_", 100)
    assert at.done() == {"open": 1}


async def test_an_id_under_a_key_whose_position_is_closed_is_a_spent_minute(office: Any) -> None:
    """The header's key was used, and nothing of it is listed: nothing is open."""
    at = await office(agent={"order_endpoint": "trade"})
    event = at.wish(BTC, "long")
    await at.desk.venue.open(at.order(BTC, "long", at.now))
    (made,) = await at.desk.venue.positions()
    await at.desk.venue.close(made.position_id)
    assert (await at.run(event)).skipped == "spent"
    assert await at.book() == {}
    assert (await at.place(event)).presumed == 50, "what it gained nobody can tell"


async def test_a_position_that_is_not_as_ordered_is_left_to_a_person(
    office: Any, post: Any, store: Store
) -> None:
    """Under our key, with another size: failed with the reason, told, and open in the book.

    A shutdown finds it there and closes it with the rest; a replay takes it as it is.
    """
    at = await office(faults="lost_answers=1")
    event = at.wish(BTC, "long")
    await at.run(event)
    at.sandbox._faults._rates["lost_answers"] = 0.0
    at.sandbox._venue._open[next(iter(at.sandbox._venue._open))].order = msgspec.structs.replace(
        next(iter(at.sandbox._venue._open.values())).order, size_usdc=Decimal(500)
    )
    decision = await at.run(event, attempt=2)
    assert isinstance(decision, Fail)
    assert decision.failure.error_type == "StrangePosition"
    assert (await at.effect(event)).state == "unknown"
    assert await at.book() == {BTC: ("long", "open")}
    assert (await at.place(event)).size == Decimal(500), "as the venue has it"
    assert [one.payload["name"] for one in post.events.values()] == ["book_differs"]
    assert await at.run(event, replay=1) == Ack()
    assert (await at.effect(event)).state == "done"
    await at.trade(ETH, "long")
    said = {"operator": "ann", "note": "", "now_ms": at.now}
    await store.run(lambda tx: state.order_mode(tx, "pf_agent_sandbox", "shutdown", **said))
    await at.desk.watch.look(at.now)
    for one in [one for one in post.events.values() if one.type == "order.close_requested"]:
        assert await at.run(one) == Ack()
    assert (await at.book(), await at.venue()) == ({}, {})
    assert at.done() == {"open": 2, "close": 2}


async def test_a_mode_that_trades_nothing_resends_nothing(office: Any) -> None:
    """Observation, with an outcome unknown: it is asked about, and let go of once it is quiet."""
    at = await office(faults="errors=1")
    event = at.wish(BTC, "long")
    await at.run(event, at=at.now)
    at.sandbox._faults._rates["errors"] = 0.0
    at.desk.watch.state = AgentState(Standing("observation", "so"))
    waits = await at.run(event, attempt=2, at=at.now + 1_000)
    assert isinstance(waits, Postpone)
    later = at.now + 1_000 + int(waits.delay * 1000)
    assert "observation" in (await at.run(event, attempt=2, at=later)).skipped
    assert at.done() == {}
    assert await at.book() == {}


async def test_twins_that_wait_do_not_keep_each_other_waiting(office: Any) -> None:
    """Two events of one order look again and again: quiet is counted from the last request."""
    at = await office(faults="errors=1")
    wish = at.order(BTC, "long", at.now)
    twins = [at.event(wish, ts=at.now - 100_000) for _ in range(2)]
    await at.run(twins[0], at=at.now)
    at.sandbox._faults._rates["errors"] = 0.0
    for later_ms in (25_000, 55_000):
        assert isinstance(await at.run(twins[0], attempt=2, at=at.now + later_ms), Postpone)
        assert isinstance(await at.run(twins[1], at=at.now + later_ms), Postpone)
    assert isinstance(await at.run(twins[1], at=at.now + 61_000), Expire)
    assert await at.book() == {}
    assert at.done() == {}
