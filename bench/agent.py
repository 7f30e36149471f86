"""How long the agent thinks about a tick, and how long a worker needs to know a thousand pairs."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
from pydantic import SecretStr

from agent.desk import Desk, open_desk
from agent.handlers import NAME, on_tick
from agent.settings import AgentSettings
from agent.strategy import Window
from fleet.core.errors import LogicError
from fleet.core.events import Event
from fleet.core.payloads import MarketTick
from fleet.core.ulid import derived_ulid
from fleet.store import KeyState, Settled, Store, open_store
from topology import names
from workers.context import Context, Startup
from workers.lanes import LaneKeeper

PAIRS: Final = 1_000
LANES: Final = 16
START_MS: Final = 1_750_000_000_000
SETTINGS: Final = AgentSettings(
    agent_id="pf_agent_bench", agent_key=SecretStr("pf_live_bench"), partitions=LANES
)


async def run(ticks: int) -> dict[str, Any]:
    """How long a decision takes, with and without an order, and taking over all windows."""
    with TemporaryDirectory(prefix="fleet-bench-") as folder:
        store = open_store(f"sqlite:///{Path(folder) / 'fleet.sqlite3'}")
        await store.open()
        try:
            async with _desk(store) as desk:
                quiet, signals = _decide(desk, ticks)
            return {
                "ticks": ticks,
                "no_signal_ms": _percentiles(quiet),
                "order_ms": _percentiles(signals),
                "pairs": PAIRS,
                "restore_s": round(await _restore(store), 3),
            }
        finally:
            await store.close()


@asynccontextmanager
async def _desk(store: Store) -> AsyncIterator[Desk]:
    async def nowhere(_: Event) -> None:
        return

    async with open_desk(SETTINGS, Startup(store, "bench", nowhere)) as desk:
        yield desk


def _percentiles(times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100)
    return {"p50": round(cuts[49], 4), "p99": round(cuts[98], 4)}


def _decide(desk: Desk, ticks: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each call without a signal, and of each with one and its order made ready."""
    window: Window | None = None
    quiet: list[float] = []
    signals: list[float] = []
    for number, price in enumerate(islice(cycle([1000] * 19 + [1010]), ticks)):
        at_ms = START_MS + number * 30_000
        tick = MarketTick("BTC/USDT", Decimal(price), at_ms)
        event = Event(derived_ulid(at_ms, "tick"), "market.tick", desk.agent, {}, at_ms)
        context = Context(
            event, attempt=1, now_ms=at_ms, worker="bench", app=desk,
            state=window, state_type=Window,
        )  # fmt: skip
        began = time.perf_counter()
        on_tick(context, tick)
        took_ms = (time.perf_counter() - began) * 1000
        (signals if context.emitted else quiet).append(took_ms)
        window = context.state
    return quiet, signals


async def _restore(store: Store) -> float:
    """Seconds from owning no lane to knowing the windows of all pairs, in every lane."""
    lanes = [names.lane(NAME, "market.tick", number) for number in range(LANES)]
    prices = tuple(Decimal(61_800) + Decimal(number) / 100 for number in range(20))
    body = msgspec.json.encode(Window(prices, START_MS)).decode()
    for first in ("one", "two"):  # its owner before, and its states
        await LaneKeeper(store, NAME, first, Window).hold(lanes)
    await store.commit([_state(number, lanes, body) for number in range(PAIRS)])
    keeper = LaneKeeper(store, NAME, "heir", Window)
    began = time.perf_counter()
    await keeper.hold(lanes)
    seconds = time.perf_counter() - began
    known = sum(len(lane.states) for queue in lanes if (lane := keeper.get(queue)))
    if known != PAIRS:
        raise LogicError(f"{known} of {PAIRS} windows were restored")
    return seconds


def _state(number: int, lanes: list[str], body: str) -> Settled:
    pair = f"P{number:04d}/USDT"
    event_id = derived_ulid(START_MS, pair)
    return Settled(
        NAME, event_id, "done", 1, "two", START_MS,
        states=(KeyState(pair, 1, body),), lane=lanes[number % LANES], epoch=2,
    )  # fmt: skip
