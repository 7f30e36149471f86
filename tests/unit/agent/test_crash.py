"""The crash of a day: 6 April 2018, minute by minute, through the agent's own handlers."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from agent.modes import DRAWDOWN
from fleet.core.decision import Ack
from fleet.core.payloads import MarketCandle
from fleet.store import Store, equity, positions
from sandbox.player import Quote

AGENT = "pf_agent_sandbox"
DAY_MS = 1_522_972_800_000
MINUTE_MS = 60_000
LATER_MS = 7 * 365 * 86_400_000
"""Told as of some years later: no event is older than 2020."""
AFTER = 90
"""Candles that follow the shutdown."""


class Minute(NamedTuple):
    """A candle of a pair, at its close."""

    at_ms: int
    candle: MarketCandle


def day(folder: Path) -> Iterator[Minute]:
    """Every candle of the day, in order."""
    with gzip.open(folder / "candles-1m-2017-2018.csv.gz", "rt", newline="") as file:
        for row in csv.DictReader(file):
            at_ms = int(row.pop("ts_ms"))
            if DAY_MS <= at_ms < DAY_MS + 86_400_000:
                pair = row.pop("pair")
                told = {name: Decimal(text) for name, text in row.items()}
                yield Minute(at_ms + MINUTE_MS + LATER_MS, MarketCandle(pair, **told))


class Trader:
    """The agent's handlers, one replica, at a venue that has the candles' prices."""

    def __init__(self, floor: SimpleNamespace, desk: Any, sandbox: Any, post: Any) -> None:
        self.floor = floor
        self.desk = desk
        self.sandbox = sandbox
        self.post = post
        self.runner = floor.Runner(desk)
        self.skipped: Counter[str] = Counter()

    async def live(self, minute: Minute) -> None:
        """A candle, the orders that it leads to, and a look at how things are."""
        pair, price = minute.candle.pair, minute.candle.close
        self.sandbox._emitter.board[pair] = Quote(price, "{}")
        event = self.floor.event_of(minute.candle, "market.candle", minute.at_ms)
        await self.deliver(event, minute.at_ms)
        while self.runner.emitted:
            await self.deliver(self.runner.emitted.pop(0), minute.at_ms)

    async def deliver(self, event: Any, at_ms: int) -> None:
        """One event; after an order the mode is looked at, as it is each second."""
        decision = await self.runner.run(event, at=at_ms)
        assert isinstance(decision, Ack)
        if event.type == "order.requested":
            self.skipped[decision.skipped.partition(":")[0]] += 1
            await self.desk.watch.look(at_ms)

    async def close_all(self, at_ms: int) -> None:
        """Deliver what the shutdown asked for, twice."""
        for event in 2 * [one for one in self.post.events.values() if "close" in one.type]:
            await self.deliver(event, at_ms)


async def test_a_crash_ends_in_a_shutdown_that_closes_all_and_stays(
    floor: SimpleNamespace, sandbox: Any, desk: Any, post: Any, *, store: Store, data_dir: Path
) -> None:
    """The losses of the day shut it; all is closed, once; what follows opens nothing."""
    venue = await sandbox()
    settings = {"candle_strategy": "agent.breakout:Breakout", "capital_usdc": Decimal(100)}
    trader = Trader(floor, await desk(venue.url, **settings), venue, post)
    watch, minutes = trader.desk.watch, day(data_dir)
    for minute in minutes:
        await trader.live(minute)
        if watch.standing.mode == "shutdown":
            break
    assert watch.standing.reason == DRAWDOWN
    lost = await store.read(lambda tx: equity.get(tx, AGENT))
    assert lost.drawdown(Decimal(100)) > Decimal("0.2")
    held = await trader.desk.venue.positions()
    assert held, "it shut down with something open"
    before = venue.summary()
    await trader.close_all(minute.at_ms)
    assert await trader.desk.venue.positions() == ()
    assert await store.read(lambda tx: positions.open_positions(tx, AGENT)) == []
    assert venue.summary()["closed"] == before["closed"] + len(held)
    trader.skipped.clear()
    for minute, _ in zip(minutes, range(AFTER), strict=False):
        await trader.live(minute)
    assert set(trader.skipped) == {"mode shutdown"}, "there were signals, and none was traded"
    assert watch.standing.mode == "shutdown"
    assert venue.summary()["opened"] == before["opened"]
    assert venue.summary()["keys_executed_twice"] == 0
