"""Ticks become orders, and what else happens is recorded."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agent import records
from agent.desk import Desk
from agent.handlers import on_tick, service
from agent.keys import trade_key
from agent.settings import AgentSettings
from agent.strategy import Window
from fleet.core.decision import Ack, Fail
from fleet.core.errors import DataError
from fleet.core.events import read_event, write_event
from fleet.core.payloads import (
    EscrowDisputed,
    EscrowReleased,
    JobFailed,
    LowBalance,
    MarketCandle,
    MarketTick,
)
from fleet.store import Store, facts
from workers.context import Context

AGENT = "pf_agent_sandbox"


class Lane:
    """One lane's owner: keeps the window between ticks as the runtime does."""

    def __init__(self, floor: SimpleNamespace, desk: Desk) -> None:
        self._floor = floor
        self._desk = desk
        self.state: Any = None
        self.emitted: list[Any] = []

    def tick(
        self,
        price: Decimal | int,
        at: int,
        pair: str = "BTC/USDT",
        ts: int = 0,
        *,
        synthetic: bool = False,
    ) -> Any:
        """Deliver one tick."""
        payload = MarketTick(pair, Decimal(price), at, synthetic=synthetic)
        event = self._floor.event_of(payload, "market.tick", ts or at)
        context = Context(
            event,
            attempt=1,
            is_replay=False,
            now_ms=at,
            worker="w",
            app=self._desk,
            state=self.state,
            state_type=Window,
        )
        result = on_tick(context, payload)
        self.state = context.state
        self.emitted += context.emitted
        return result

    def play(self, prices: Iterable[Decimal | int], at: int) -> None:
        """Deliver prices, 100 ms apart."""
        for number, price in enumerate(prices):
            self.tick(price, at + 100 * number)


@pytest.fixture
async def lane(floor: SimpleNamespace, desk: Any) -> Lane:
    """A lane at a venue that does not answer: a tick handler never asks it."""
    here = await desk("http://127.0.0.1:9", max_trade_usdc=Decimal("12.5"), leverage=2)
    return Lane(floor, here)


def test_a_move_becomes_an_order(lane: Lane, floor: SimpleNamespace) -> None:
    """One durable command with the deterministic key, readable as any event, late as its tick."""
    at = floor.now() // 60_000 * 60_000
    lane.play([1000] * 19 + [Decimal("1003.01")], at)
    event, record = lane.emitted
    assert record.type == "signal.recorded"
    assert event.type == "order.requested"
    assert event.ts == at + 1900
    order = (
        service(AgentSettings())
        .handlers["order.requested"]
        .read(read_event(write_event(event), floor.now() + 60_000))
    )
    assert order.key == trade_key(AGENT, "BTC/USDT", "long", at)
    assert (order.size_usdc, order.leverage, order.price) == (
        Decimal("12.5"),
        2,
        Decimal("1003.01"),
    )


def test_twin_owners_emit_the_same_order(floor: SimpleNamespace, lane: Lane) -> None:
    """During a handover both may handle a tick: the same event id, the same key."""
    at = floor.now() // 60_000 * 60_000
    lane.play([1000] * 19, at)
    before = lane.state
    payload = MarketTick("BTC/USDT", Decimal(1010), at + 1900)
    event = floor.event_of(payload, "market.tick", at + 1900)
    twins = [
        Context(
            event,
            attempt=1,
            is_replay=False,
            now_ms=at + late,
            worker=f"w{late}",
            app=lane._desk,
            state=before,
            state_type=Window,
        )
        for late in (2000, 9000)
    ]
    for twin in twins:
        on_tick(twin, payload)
    assert len(twins[0].emitted) == 2
    assert twins[0].emitted == twins[1].emitted


@pytest.mark.parametrize(("price", "late"), [(0, 0), (-5, 0), (2000, -1)])
def test_a_useless_tick_is_skipped(
    lane: Lane, floor: SimpleNamespace, price: int, late: int
) -> None:
    """Zero, negative, older than the last: journalled as skipped, the window as it was."""
    at = floor.now()
    lane.play([1000] * 20, at)
    before = lane.state
    result = lane.tick(price, at + 1900 + late)
    assert isinstance(result, Ack)
    assert result.skipped
    assert lane.state is before
    assert lane.emitted == []


def test_a_pair_that_is_none_fails(lane: Lane, floor: SimpleNamespace) -> None:
    """A name of a thousand characters does not become a key in the store."""
    for pair in ("", "x" * 1000):
        with pytest.raises(DataError):
            lane.tick(1, floor.now(), pair)
    assert lane.state is None


async def test_facts_do_not_depend_on_the_order_of_arrival(
    store: Store, floor: SimpleNamespace, desk: Any
) -> None:
    """Released and disputed in any order: the newer event counts, income is booked once."""
    at = floor.now()
    told = [
        (EscrowDisputed("e1", Decimal("10.10")), "escrow.disputed", at),
        (EscrowReleased("e1", Decimal("10.10")), "escrow.released", at + 1),
        (EscrowReleased("e2", Decimal("0.20")), "escrow.released", at + 2),
        (EscrowReleased("e3", Decimal("7.70")), "escrow.released", at + 3),
        (EscrowDisputed("e3", Decimal("7.70")), "escrow.disputed", at + 4),
    ]
    events = [floor.event_of(*one) for one in told]
    runner = floor.Runner(await desk("http://127.0.0.1:9"))
    for number, order in enumerate(itertools.islice(itertools.permutations(events), 0, 120, 17)):
        await store.run(lambda tx: tx.execute("DELETE FROM facts"))
        await store.run(lambda tx: tx.execute("DELETE FROM journal"))
        for event in order:
            await runner.run(event, at=at + number)
            await runner.run(event, at=at + number)
        assert await store.read(lambda tx: records.income(tx, AGENT)) == Decimal("10.30")


async def test_jobs_and_candles_are_recorded(
    store: Store, floor: SimpleNamespace, desk: Any
) -> None:
    """The latest of a job and the last candle of a pair, exact; a name too long is refused."""
    runner = floor.Runner(await desk("http://127.0.0.1:9"))
    one, low = Decimal(1), Decimal("0.10")
    candle = MarketCandle("BTC/USDT", one, one, low, one, one)
    assert await runner.run(floor.event_of(candle, "market.candle")) == Ack()
    assert await runner.run(floor.event_of(JobFailed("j1", "gave up"), "job.failed")) == Ack()
    known = await store.read(lambda tx: facts.under(tx, ""))
    assert {fact.name for fact in known} == {"candle/BTC/USDT", f"job/{AGENT}/j1"}
    assert '"low":"0.10"' in known[0].value
    long = floor.event_of(JobFailed("j" * 300), "job.failed")
    assert isinstance(await runner.run(long), Fail)


async def test_an_id_from_the_future_does_not_freeze_what_is_known(
    store: Store, floor: SimpleNamespace, desk: Any
) -> None:
    """An event whose id would outrank all later ones is parked instead of believed."""
    runner = floor.Runner(await desk("http://127.0.0.1:9"))
    poison = floor.event_of(LowBalance(Decimal(1), Decimal(10)), "wallet.low_balance")
    poison = msgspec.structs.replace(poison, event_id="7" + "Z" * 25)
    assert isinstance(await runner.run(poison), Fail)
    assert not await store.read(lambda tx: records.is_paused(tx, AGENT))


def test_a_moment_is_counted_once_whoever_tells_of_it(lane: Lane, floor: SimpleNamespace) -> None:
    """Real and synthetic tick of one moment, in any order: one of them; what is newer counts."""
    at = floor.now()
    lane.play([1000] * 3, at)
    assert lane.tick(1000, at + 200, synthetic=True).skipped
    assert len(lane.state.prices) == 3
    lane.tick(1001, at + 300, synthetic=True)
    assert lane.tick(1001, at + 300).skipped
    lane.tick(1002, at + 300 + 1)
    lane.tick(1002, at + 300 + 1)
    assert lane.state.prices == (1000, 1000, 1000, 1001, 1002, 1002)
