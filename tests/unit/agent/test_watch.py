"""One mode over all replicas: what lowers it, what that stops, and what brings it back."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from agent import state
from agent.modes import DRAWDOWN, NO_WRITES
from fleet.core.decision import Ack, Fail, Postpone, Retry
from fleet.core.errors import RefusedError
from fleet.core.payloads import BalanceChanged, LowBalance
from fleet.store import Store, breakers, effects, equity, positions
from fleet.store.positions import Position
from tests.waiting import until

AGENT, BTC, ETH, SOL = "pf_agent_sandbox", "BTC/USDT", "ETH/USDT", "SOL/USDT"


async def lose(store: Store, usdc: str, book: str = AGENT) -> None:
    """A position that closed with this loss stands in the book."""
    key = f"old {usdc}"
    old = Position(key, book, "OLD/USDT", "long", Decimal(50), Decimal(3), ts_ms=1)
    await store.run(lambda tx: positions.reserve(tx, old, 99))
    await store.run(lambda tx: positions.closed(tx, key, -Decimal(usdc), None, 2))


async def price_at(store: Store, at_ms: int) -> None:
    """The last price moved a window at this time."""
    row = ("trading.agent", "lane", BTC, 1, "{}", at_ms)
    sql = "INSERT INTO lane_states VALUES (?, ?, ?, ?, ?, ?)"
    await store.run(lambda tx: tx.execute("DELETE FROM lane_states"))
    await store.run(lambda tx: tx.execute(sql, row))


def kinds(post: Any) -> Counter[str]:
    """What was published from outside of a handler, by type."""
    return Counter(event.type for event in post.events.values())


async def test_a_drawdown_shuts_every_replica_and_closes_everything_once(
    office: Any, desk: Any, post: Any, store: Store, floor: SimpleNamespace
) -> None:
    """Two replicas, two positions: each closed by one event; nothing is opened any more."""
    at = await office()
    other = await desk(at.sandbox.url)
    for pair in (BTC, ETH):
        assert await at.trade(pair, "long") == Ack()
    await lose(store, "30.01")
    for watch in (at.desk.watch, other.watch):
        assert (await watch.look(at.now)).mode == "shutdown"
        assert watch.standing.reason == DRAWDOWN
    assert kinds(post) == {"order.close_requested": 2, "alert.raised": 1}
    runner = floor.Runner(other, "worker-2")
    for event in post.events.values():
        assert await runner.run(event) == Ack()
        assert (await runner.run(event)).skipped
    assert await at.venue() == {}
    assert await at.book() == {}
    assert at.done() == {"open": 2, "close": 2}
    assert "shutdown" in (await at.trade(SOL, "long")).skipped
    assert (await other.watch.look(at.now + 10**6)).mode == "shutdown", "it stays shut"


async def test_a_broker_that_takes_nothing_delays_no_mode(
    office: Any, post: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alert hangs at the broker for ever: the next mode reaches this replica all the same."""
    asked: list[str] = []

    async def hang(event: Any) -> None:
        asked.append(event.type)
        await asyncio.Event().wait()

    monkeypatch.setattr(post, "publish", hang)
    monkeypatch.setattr("agent.watch.EVERY_S", 0.05)
    at = await office()
    await say(store, "read_only", at.now)
    await until(lambda: asked)
    await say(store, "shutdown", at.now + 1)
    await until(lambda: at.desk.watch.standing.mode == "shutdown")
    assert asked == ["alert.raised"]


async def test_only_an_operator_ends_a_shutdown_and_the_drawdown_counts_anew(
    office: Any, store: Store
) -> None:
    """Released: full within a look, and trading; who did it and why is written down."""
    at = await office()
    await lose(store, "40")
    await at.desk.watch.look(at.now)
    said = {"operator": "ann", "note": "sized down", "now_ms": at.now}
    await store.run(lambda tx: state.order_mode(tx, AGENT, "full", **said))
    assert (await at.desk.watch.look(at.now + 1_000)).mode == "full"
    assert await at.trade(BTC, "long") == Ack()
    rows = await store.read(
        lambda tx: tx.query("SELECT operator, was, became, note FROM interventions")
    )
    assert rows == [("ann", "shutdown", "full", "sized down")]
    assert (await store.read(lambda tx: equity.get(tx, AGENT))).realised == -40


async def test_a_second_shutdown_asks_again_for_what_the_first_could_not_close(
    office: Any, store: Store, post: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The closing was refused and is given up; the next shutdown is a new reason to close."""
    at = await office()
    await at.trade(BTC, "long")

    async def refuse(*_: Any) -> Any:
        raise RefusedError("not now, not ever")

    async def say(mode: str, later_ms: int) -> None:
        said = {"operator": "ann", "note": "", "now_ms": at.now + later_ms}
        await store.run(lambda tx: state.order_mode(tx, AGENT, mode, **said))
        await at.desk.watch.look(at.now + later_ms)

    def closings() -> list[Any]:
        return [one for one in post.events.values() if one.type == "order.close_requested"]

    await say("shutdown", 0)
    (first,) = closings()
    with monkeypatch.context() as patch:
        patch.setattr(at.desk.venue, "close", refuse)
        assert isinstance(await at.run(first), Fail)
    await say("full", 1_000)
    await say("shutdown", 2_000)
    (second,) = (one for one in closings() if one != first)
    assert await at.run(second) == Ack()
    assert (await at.book(), await at.venue()) == ({}, {})


async def test_a_low_balance_shuts_it(office: Any, floor: SimpleNamespace) -> None:
    """Below MIN_BALANCE_USDC, as the wallet tells it."""
    at = await office()
    poor = LowBalance(Decimal("0.99"), Decimal(10))
    await at.run(floor.event_of(poor, "wallet.low_balance"))
    assert (await at.desk.watch.look(at.now)).mode == "shutdown"


async def test_without_prices_it_watches_and_comes_back_slowly(
    office: Any, store: Store, post: Any
) -> None:
    """61 s without a price: nothing is traded; ten steady seconds later it is again."""
    at = await office()
    await price_at(store, at.now - 61_000)
    assert (await at.desk.watch.look(at.now)).mode == "observation"
    assert "observation" in (await at.trade(BTC, "long")).skipped
    await price_at(store, at.now + 60_000)
    for later_ms in (1_000, 10_999):
        assert (await at.desk.watch.look(at.now + later_ms)).mode == "observation"
    assert (await at.desk.watch.look(at.now + 11_000)).mode == "full"
    assert kinds(post) == {"alert.raised": 1}
    assert at.done() == {}


async def test_read_only_closes_and_opens_nothing(office: Any, store: Store) -> None:
    """An operator's ceiling: the flip closes the long, the short is not opened."""
    at = await office()
    await at.trade(BTC, "long")
    said = {"operator": "ann", "note": "holidays", "now_ms": at.now}
    await store.run(lambda tx: state.order_mode(tx, AGENT, "read_only", **said))
    await at.desk.watch.look(at.now)
    assert "read_only" in (await at.trade(BTC, "short", 1)).skipped
    assert "read_only" in (await at.trade(ETH, "long", 1)).skipped
    assert at.done() == {"open": 1, "close": 1}
    assert await at.book() == {}


async def test_the_mode_stands_in_the_effect(office: Any) -> None:
    """Each order's row says under which mode it was tried."""
    at = await office()
    event = at.wish(BTC, "long")
    await at.run(event)
    assert (await at.effect(event)).mode == "full"


async def test_a_breaker_is_one_for_all_and_sends_one_probe(
    office: Any,
    desk: Any,
    store: Store,
    floor: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five failures at two replicas: both wait; a minute later one asks, and it closes."""
    at = await office(agent={"max_positions": 9}, faults="errors=1")
    monkeypatch.setattr("fleet.clock.now_ms", lambda: at.now)
    there = floor.Runner(await desk(at.sandbox.url, max_positions=9), "worker-2")
    here = at.runner
    for number, pair in enumerate(floor.PAIRS[:5]):
        runner = (here, there)[number % 2]
        assert isinstance(await runner.run(at.wish(pair, "long"), at=at.now), Retry)
    calls = at.sandbox.summary()["faults"]["calls"]
    waiting = at.event(at.order(floor.PAIRS[5], "long", at.now))
    for runner in (here, there):
        decision = await runner.run(waiting, at=at.now + 2_000)
        assert isinstance(decision, Postpone)
        assert decision.delay == pytest.approx(58.0)
    assert at.sandbox.summary()["faults"]["calls"] == calls
    at.sandbox._faults._rates["errors"] = 0.0
    assert (await at.desk.watch.look(at.now + 3_000)).reason == NO_WRITES
    assert await there.run(waiting, at=at.now + 61_000) == Ack(), "read_only lets the probe through"
    known = await store.read(lambda tx: breakers.get(tx, AGENT))
    assert known.opened_ms == 0


DAMAGE = (
    "UPDATE checkpoints SET body = 'x' WHERE name = 'agent/pf_agent_sandbox'"
    " AND seq = (SELECT max(seq) FROM checkpoints WHERE name = 'agent/pf_agent_sandbox')"
)


async def say(store: Store, mode: str, now_ms: int) -> None:
    """An operator's word."""
    said = {"operator": "ann", "note": mode, "now_ms": now_ms}
    await store.run(lambda tx: state.order_mode(tx, AGENT, mode, **said))


async def test_a_damaged_checkpoint_is_refused_and_the_one_before_used(
    office: Any, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """Loudly: what happened by itself in between is found out anew."""
    at = await office()
    await say(store, "read_only", at.now)
    await price_at(store, at.now - 61_000)
    assert (await at.desk.watch.look(at.now)).mode == "observation"
    await store.run(lambda tx: tx.execute(DAMAGE))
    await price_at(store, at.now)
    assert (await at.desk.watch.look(at.now)).mode == "read_only"
    assert "is damaged" in capsys.readouterr().out


async def test_an_older_word_undoes_nothing(office: Any, store: Store) -> None:
    """What came by itself after it, and stands in the checkpoint that is used, holds."""
    at = await office()
    await say(store, "full", at.now)
    await price_at(store, at.now - 61_000)
    for later_ms in (0, 31_000):
        assert (await at.desk.watch.look(at.now + later_ms)).mode == "observation"
    await store.run(lambda tx: tx.execute(DAMAGE))
    found = await store.read(lambda tx: state.load(tx, AGENT))
    assert (found.state.standing.mode, found.checkpoint.is_damaged) == ("observation", True)


@pytest.mark.parametrize("first", ["full", "shutdown"])
async def test_an_operator_s_word_outlives_the_checkpoint_that_had_it(
    office: Any, store: Store, first: str
) -> None:
    """The newest is damaged: the last word holds all the same, be it an end or a start."""
    at = await office()
    last = "full" if first == "shutdown" else "shutdown"
    for mode in (first, last):
        await say(store, mode, at.now)
    await store.run(lambda tx: tx.execute(DAMAGE))
    assert (await store.read(state.every))[AGENT].standing.mode == last
    for later_ms in (0, 1_000, 60_000):
        assert (await at.desk.watch.look(at.now + later_ms)).mode == last
    standing = at.desk.watch.standing
    assert (standing.operator, standing.note, standing.ceiling) == ("ann", last, last)


async def test_a_shutdown_that_came_by_itself_outlives_its_checkpoint_too(
    office: Any, store: Store
) -> None:
    """The balance is back meanwhile: it stays shut until an operator says so."""
    at = await office()
    await say(store, "full", at.now)
    for usdc, later_ms in (("0.99", 1), ("90", 2)):
        told = at.event(BalanceChanged(Decimal(usdc)), "wallet.balance_changed", at.now + later_ms)
        await at.run(told)
        assert (await at.desk.watch.look(at.now)).mode == "shutdown"
    await store.run(lambda tx: tx.execute(DAMAGE))
    assert (await at.desk.watch.look(at.now + 60_000)).mode == "shutdown"
    await say(store, "full", at.now)
    assert (await at.desk.watch.look(at.now + 60_000)).mode == "full"


@pytest.mark.parametrize(("said", "then"), [("read_only", "observation"), ("shutdown", "shutdown")])
async def test_where_no_checkpoint_is_whole_nothing_is_traded(
    office: Any, store: Store, said: str, then: str
) -> None:
    """Until an operator says so; a shutdown stays one."""
    at = await office()
    await say(store, said, at.now)
    await say(store, said, at.now)
    await store.run(
        lambda tx: tx.execute(
            "UPDATE checkpoints SET checksum = 'x' WHERE seq < 9 AND name LIKE 'agent%'"
        )
    )
    for later_ms in (0, 10**6):
        assert (await at.desk.watch.look(at.now + later_ms)).mode == then
    await say(store, "full", at.now)
    assert (await at.desk.watch.look(at.now)).mode == "full"


async def test_where_nothing_is_whole_nothing_is_traded(office: Any, store: Store) -> None:
    """Neither the states nor the words: nothing is traded until an operator says so."""
    at = await office()
    await say(store, "full", at.now)
    await store.run(lambda tx: tx.execute("UPDATE checkpoints SET checksum = 'x'"))
    assert (await at.desk.watch.look(at.now)).mode == "observation"
    assert (await at.desk.watch.look(at.now + 10**6)).mode == "observation"
    await say(store, "full", at.now)
    assert (await at.desk.watch.look(at.now)).mode == "full"


async def test_a_state_is_kept_on_every_change_and_every_thirty_seconds(
    office: Any, store: Store
) -> None:
    """Not at every look: a quiet agent costs two writes a minute."""
    at = await office()
    seqs = []
    for later_ms in (0, 1_000, 29_000, 60_000, 61_000, 95_000):
        await at.desk.watch.look(at.now + later_ms)
        rows = await store.read(lambda tx: tx.query("SELECT max(seq) FROM checkpoints"))
        seqs.append(rows[0][0] - (seqs[0] if seqs else 0))
    assert seqs[1:] == [0, 0, 1, 1, 2]


async def test_paper_trades_without_money_in_a_book_of_its_own(office: Any, store: Store) -> None:
    """Filled at the last price, closed with the stand-in's profit; the venue hears nothing."""
    at = await office(agent={"paper": True})
    prices = '{"prices":["100","%s"],"last_ms":1,"long_minute":-1,"short_minute":-1}'
    sql = "INSERT INTO lane_states VALUES ('trading.agent', 'lane', ?, 1, ?, ?)"
    await store.run(lambda tx: tx.execute(sql, (BTC, prices % 200, at.now)))
    event = at.event(at.order(BTC, "long", at.now))
    assert await at.run(event) == Ack()
    change = "UPDATE lane_states SET body = ?"
    await store.run(lambda tx: tx.execute(change, (prices % 210,)))
    assert await at.trade(BTC, "short", 1) == Ack()
    book = f"{AGENT}/paper"
    gained = await store.read(lambda tx: equity.get(tx, book))
    assert gained.realised == Decimal("7.5"), "50 USDC, three times, 5 % up"
    held = await store.read(lambda tx: positions.open_positions(tx, book))
    assert [(one.direction, one.entry_price) for one in held] == [("short", Decimal(210))]
    assert await at.book() == {}, "the real book is empty"
    assert at.done() == {}
    row = await store.read(lambda tx: effects.get(tx, event.payload["key"]))
    assert row.mode == "paper:full"
    health = (await at.desk.watch.look(at.now)) and at.desk.watch.state.health
    assert health.balance == Decimal("157.5")
