"""Positions that are over and whose result nobody knows, and closings that are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest

from agent import state
from agent.keys import RESEND_MS
from agent.modes import DRAWDOWN
from agent.world.reconcile import ASKED_MS, STUCK_MS
from fleet.core.decision import Ack, Fail
from fleet.core.errors import RefusedError, SettingsError
from fleet.core.events import Event
from fleet.core.payloads import CloseRequested
from fleet.core.ulid import make_ulid
from fleet.store import Store, equity, ledger, positions

AGENT, BTC, ETH = "pf_agent_sandbox", "BTC/USDT", "ETH/USDT"


async def price(store: Store, pair: str, usdc: int) -> None:
    """The last price of a pair."""
    body = f'{{"prices":["{usdc}"],"last_ms":1,"long_minute":-1,"short_minute":-1}}'
    row = ("trading.agent", "lane", pair, 1, body, 1)
    await store.run(lambda tx: tx.execute("DELETE FROM lane_states"))
    sql = "INSERT INTO lane_states VALUES (?, ?, ?, ?, ?, ?)"
    await store.run(lambda tx: tx.execute(sql, row))


async def shut(at: Any, later_ms: int = 0) -> None:
    """An operator shuts it down."""
    said = {"operator": "ann", "note": "", "now_ms": at.now + later_ms}
    await at.desk.store.run(lambda tx: state.order_mode(tx, AGENT, "shutdown", **said))
    await at.desk.watch.look(at.now + later_ms)


def told(post: Any, name: str) -> list[str]:
    """The details of the alerts of this name that were published."""
    return [
        event.payload["detail"]
        for event in post.events.values()
        if event.type == "alert.raised" and event.payload["name"] == name
    ]


def closings(post: Any) -> list[Any]:
    """What was asked to be closed."""
    return [one for one in post.events.values() if one.type == "order.close_requested"]


def close(at: Any, position: str, venue_id: str = "") -> Event:
    """Somebody's wish to close a position."""
    return at.event(
        CloseRequested(f"close {at.now}", position, BTC, "why", venue_id), "order.close_requested"
    )


def reconcile(at_ms: int) -> Event:
    """The clock's."""
    payload = {"schedule": "clock.reconcile", "due_ms": at_ms}
    return Event(make_ulid(at_ms, b"0123456789"), "clock.reconcile", AGENT, payload, at_ms)


@contextmanager
def forgetful(at: Any) -> Iterator[None]:
    """The venue knows none of its positions for a while."""
    venue = at.sandbox._venue
    kept = dict(venue._positions), dict(venue._open)
    venue._positions.clear()
    venue._open.clear()
    yield
    venue._positions.update(kept[0])
    venue._open.update(kept[1])


async def test_what_the_venue_forgot_counts_as_lost_at_the_last_price_until_it_is_told(
    office: Any, store: Store, post: Any
) -> None:
    """Closing answers 404: presumed, told to a person once, asked again, then exact."""
    at = await office(agent={"capital_usdc": 1000})
    event = at.wish(BTC, "long")
    await at.run(event)
    await price(store, BTC, 90)
    with forgetful(at):
        assert await at.run(close(at, event.payload["key"])) == Ack()
    assert await at.book() == {}, "its place is free"
    place = await at.place(event)
    assert (place.state, place.pnl, place.presumed) == ("closed", None, Decimal(15))
    for later_ms in (0, 1_000):
        await at.desk.watch.look(at.now + later_ms)
    assert at.desk.watch.state.health.drawdown == Decimal("0.015")
    assert len(told(post, "result_unknown")) == 1
    assert "15" in told(post, "result_unknown")[0]
    later = at.now + 60_000
    assert await at.run(reconcile(later), at=later) == Ack()
    asking = at.runner.emitted[-1]
    assert await at.run(asking) == Ack()
    assert (await at.place(event)).pnl == Decimal(0), "the sandbox's own price did not move"
    await at.desk.watch.look(at.now)
    assert at.desk.watch.state.health.drawdown == 0
    later += ASKED_MS
    assert (await at.run(reconcile(later), at=later)).skipped


@pytest.mark.parametrize(
    ("direction", "last", "presumed"),
    [("long", 110, 0), ("short", 110, 15), ("short", 90, 0), ("long", None, 50)],
)
async def test_a_presumption_errs_on_the_safe_side(
    office: Any, store: Store, direction: str, last: int | None, presumed: int
) -> None:
    """A gain is never presumed; without a price the whole stake is."""
    at = await office(agent={"max_drawdown": 1})
    event = at.wish(BTC, direction)
    await at.run(event)
    if last is not None:
        await price(store, BTC, last)
    with forgetful(at):
        await at.run(close(at, event.payload["key"]))
    assert (await at.place(event)).presumed == presumed


async def test_a_presumed_loss_can_shut_the_agent_and_an_operator_lets_it_go_on(
    office: Any, store: Store
) -> None:
    """The whole stake is a third of the capital; after `full` the drawdown counts anew."""
    at = await office()
    event = at.wish(BTC, "long")
    await at.run(event)
    with forgetful(at):
        await at.run(close(at, event.payload["key"]))
    assert (await at.desk.watch.look(at.now)).reason == DRAWDOWN
    said = {"operator": "ann", "note": "seen", "now_ms": at.now}
    await store.run(lambda tx: state.order_mode(tx, AGENT, "full", **said))
    assert (await at.desk.watch.look(at.now + 1_000)).mode == "full"
    assert await store.read(positions.doubtful) == []


async def test_an_operator_says_what_it_gained(office: Any, store: Store) -> None:
    """Once, and on record; what is open or known is not settled."""
    at = await office(agent={"max_drawdown": 1})
    event = at.wish(BTC, "long")
    key = event.payload["key"]
    await at.run(event)
    how = {"note": "account history", "operator": "ada", "now_ms": at.now}

    def settle(usdc: str) -> Any:
        return store.run(lambda tx: ledger.settle(tx, key, Decimal(usdc), **how))

    with pytest.raises(SettingsError, match="not over"):
        await settle("-3.20")
    with forgetful(at):
        await at.run(close(at, key))
    assert (await settle("-3.20")).pnl == Decimal("-3.20")
    with pytest.raises(SettingsError, match="known what it gained"):
        await settle("7")
    assert (await store.read(lambda tx: equity.get(tx, AGENT))).realised == Decimal("-3.20")
    rows = await store.read(lambda tx: tx.query("SELECT operator, action FROM interventions"))
    assert rows == [("ada", "settle")]


async def test_an_order_that_an_operator_calls_failed_leaves_nothing_in_the_book(
    office: Any, store: Store
) -> None:
    """Reserved: its place is free. Given up after the venue's day: nothing is presumed any more."""
    at = await office(faults="errors=1", agent={"max_drawdown": 1, "max_positions": 1})
    kept, old = at.wish(BTC, "long"), at.wish(ETH, "long")

    async def say_failed(event: Any) -> None:
        how: dict[str, Any] = {"note": "asked support", "operator": "ada", "now_ms": at.now + 10**9}
        await store.run(lambda tx: ledger.resolve(tx, event.payload["key"], "failed", **how))

    await at.run(kept)
    assert await at.book() == {BTC: ("long", "reserved")}
    await say_failed(kept)
    assert await at.book() == {}
    await at.run(old)
    at.sandbox._faults._rates["errors"] = 0.0
    assert isinstance(await at.run(old, attempt=2, at=at.now + RESEND_MS + 60_000), Fail)
    assert (await at.place(old)).presumed == 50
    await say_failed(old)
    assert ((await at.place(old)).presumed, (await at.place(old)).pnl) == (None, 0)


async def test_a_refused_closing_is_told_and_a_replay_of_it_closes(
    office: Any, post: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """403 in a shutdown: a person hears at once, the others are closed, a replay closes it."""
    at = await office()
    for pair in (BTC, ETH):
        await at.trade(pair, "long")
    (bad, good) = await at.desk.venue.positions()
    honest = at.desk.venue.close

    async def refuse(position_id: str, _: Any) -> Any:
        if position_id == bad.position_id:
            raise RefusedError("/api/trade/close answered 403: the market is halted")
        return await honest(position_id)

    await shut(at)
    with monkeypatch.context() as patch:
        patch.setattr(at.desk.venue, "close", refuse)
        ends = [await at.run(one) for one in closings(post)]
    assert sorted(map(type, ends), key=str) == [Ack, Fail]
    assert await at.venue() == {bad.pair: "long"}
    assert await at.book() == {bad.pair: ("long", "closing")}
    (detail,) = told(post, "close_refused")
    assert "the market is halted" in detail
    assert bad.position_id in detail
    (failed,) = (one for one, end in zip(closings(post), ends, strict=True) if end != Ack())
    assert (await at.effect(failed)).state == "failed"
    assert await at.run(failed, replay=1) == Ack()
    assert (await at.book(), await at.venue()) == ({}, {})
    assert good.position_id != bad.position_id


async def test_a_closing_that_died_is_noticed_once_the_venue_has_no_such_position(
    office: Any, post: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, then closed by hand at the venue: the reconciliation asks what it gained."""
    at = await office()
    event = at.wish(BTC, "long")
    await at.run(event)
    (made,) = await at.desk.venue.positions()

    async def refuse(*_: Any) -> Any:
        raise RefusedError("no")

    await shut(at)
    with monkeypatch.context() as patch:
        patch.setattr(at.desk.venue, "close", refuse)
        assert isinstance(await at.run(closings(post)[0], at=at.now), Fail)
    later = at.now + STUCK_MS
    await at.run(reconcile(later), at=later)
    (alert,) = at.runner.emitted
    assert "fleet effects close" in alert.payload["detail"], "it is still there"
    await at.desk.venue.close(made.position_id)
    await at.run(reconcile(later + 1), at=later + 1)
    (asking,) = (one for one in at.runner.emitted if one.type == "order.close_requested")
    assert await at.run(asking, at=later + 1) == Ack()
    assert await at.book() == {}
    assert (await at.place(event)).pnl == Decimal(0)
    assert at.done() == {"open": 1, "close": 1}


async def test_what_the_book_never_had_is_closed_by_the_venue_s_id(office: Any) -> None:
    """For an operator; once, and what the book has under that id is booked."""
    at = await office()
    stranger = (await at.desk.venue.open(at.order(BTC, "long", at.now))).position
    assert await at.run(close(at, "", stranger.position_id)) == Ack()
    assert await at.venue() == {}
    at.now += 1
    event = at.wish(ETH, "long")
    await at.run(event)
    ours = (await at.place(event)).venue_id
    assert await at.run(close(at, "", ours)) == Ack()
    assert (await at.place(event)).state == "closed"
    at.now += 1
    assert (await at.run(close(at, "", "pos_of_nobody"))).skipped
    at.now += 1
    assert isinstance(await at.run(close(at, "no such key")), Fail)


async def test_paper_and_money_do_not_touch_each_other_s_positions(
    office: Any, desk: Any, floor: Any
) -> None:
    """Events that are left over when an operator changes from one to the other."""
    at = await office()
    paper = floor.Runner(await desk(at.sandbox.url, paper=True), "worker-2")
    event = at.wish(BTC, "long")
    await at.run(event)
    end = await paper.run(close(at, event.payload["key"]))
    assert isinstance(end, Fail), "a real position is not closed on paper"
    assert f"is in the book {AGENT} " in end.failure.message
    assert await at.book() == {BTC: ("long", "open")}
    on_paper = at.order(ETH, "long", at.now, paper=True, price=Decimal(100))
    assert "on paper" in (await at.run(at.event(on_paper))).skipped
    assert await at.venue() == {BTC: "long"}
    assert await paper.run(at.event(on_paper)) == Ack()
    assert isinstance(await at.run(close(at, on_paper.key), replay=1), Fail)
    assert at.done() == {"open": 1}


async def test_an_order_whose_outcome_is_open_is_not_asked_about_on_paper(
    office: Any, desk: Any, floor: Any
) -> None:
    """Sent for money, answer lost, workers restarted on paper: it waits for a person."""
    at = await office(faults="lost_answers=1")
    paper = floor.Runner(await desk(at.sandbox.url, paper=True), "worker-2")
    event = at.wish(BTC, "long")
    await at.run(event)
    assert isinstance(await paper.run(event, attempt=2), Fail)
    assert (await at.effect(event)).state == "unknown"
    assert await at.run(event, replay=1) == Ack()
    assert await at.book() == {BTC: ("long", "open")}
