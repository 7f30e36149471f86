"""Replicas join, leave and are killed under load: lanes move, windows go on, no key comes twice."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from functools import partial
from typing import Any

import aio_pika
import msgspec

from fleet import clock
from fleet.core.events import Event, write_event
from fleet.core.ulid import make_ulid
from topology import names
from workers.placement import best

DEADLINE_S = 240
PAIRS = ["BTC/USD", "DOT/USD", "ETH/USD", "SOL/USD", "ADA/USD", "TRX/USD", "LTC/USD", "BNB/USD"]
"""Two for each lane."""
PARTITIONS = 4
AHEAD = 300
"""So many rounds may wait: a slow machine has less to do then, not ever more."""
TICKS = "SELECT count(*) FROM journal WHERE handler = 'on_tick'"


class Load:
    """Ticks of all pairs, numbered, one after the other until it is stopped."""

    def __init__(self, fleet: Any) -> None:
        self.sent = 0
        self._done = 0
        self._fleet = fleet
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Publish a round of ticks every 30 ms, and none while the workers are AHEAD behind."""
        connection = await aio_pika.connect(self._fleet.url)
        async with connection, connection.channel(on_return_raises=True) as channel:
            ingest = await channel.get_exchange(names.INGEST, ensure=False)
            while not self._stopping.is_set():
                await asyncio.gather(*(self._tick(ingest, pair) for pair in PAIRS))
                self.sent += 1
                await asyncio.sleep(0.03)
                while self.sent - self._done > AHEAD and not self._stopping.is_set():
                    ((ticks,),) = await rows(self._fleet, TICKS)
                    self._done = ticks // len(PAIRS)
                    await asyncio.sleep(0.03)

    async def reach(self, rounds: int) -> None:
        """Wait until so many rounds more are out."""
        goal = self.sent + rounds
        while self.sent < goal:
            await asyncio.sleep(0.02)

    def stop(self) -> None:
        """Send no more."""
        self._stopping.set()

    async def _tick(self, ingest: Any, pair: str) -> None:
        now_ms = clock.now_ms()
        payload = {"pair": pair, "price": 1, "timestamp_ms": now_ms, "number": self.sent}
        event = Event(make_ulid(now_ms, os.urandom(10)), "market.tick", "a", payload, now_ms)
        headers: dict[str, Any] = {
            "x-event-id": event.event_id,
            "partition": names.partition(pair, PARTITIONS),
        }
        message = aio_pika.Message(write_event(event), headers=headers, delivery_mode=2)
        await ingest.publish(message, event.type)


async def rows(fleet: Any, sql: str) -> list[tuple[Any, ...]]:
    """What the store has."""
    found: list[tuple[Any, ...]] = await fleet.store.read(lambda tx: tx.query(sql))
    return found


async def until_spread(fleet: Any, *workers: str) -> None:
    """Wait until each lane is owned by the one of these that ranks it first."""
    while True:
        owners = dict(await rows(fleet, "SELECT lane, owner FROM lanes"))
        first = {lane: best(workers, lane) for lane in owners}
        if len(owners) == PARTITIONS and owners == first:
            return
        await asyncio.sleep(0.1)


async def change_the_guard(fleet: Any, load: Load) -> None:
    """Join, be killed, join, leave, join, be killed: each amid the load."""
    spread = partial(until_spread, fleet)
    fleet.start("w1")
    await spread("w1")
    fleet.start("w2")
    await spread("w1", "w2")
    await load.reach(20)
    fleet.kill("w1")
    await spread("w2")
    fleet.start("w3")
    await spread("w2", "w3")
    await load.reach(20)
    await asyncio.to_thread(fleet.leave, "w2")
    await spread("w3")
    fleet.start("w4")
    await spread("w3", "w4")
    await load.reach(20)
    fleet.kill("w3")
    await spread("w4")


async def test_lanes_move_under_load(fleet: Any):
    """Every window is without a gap and in order, and each order was carried out once."""
    await fleet.store.open()
    load = Load(fleet)
    sending = asyncio.create_task(load.run())
    try:
        async with asyncio.timeout(DEADLINE_S):
            await change_the_guard(fleet, load)
            load.stop()
            await sending
            ticks, orders = load.sent * len(PAIRS), load.sent // 5 * len(PAIRS)
            while Counter(dict(await outcomes(fleet)).values())["done"] < ticks + orders:
                await asyncio.sleep(0.1)
    finally:
        load.stop()
        await asyncio.gather(sending, return_exceptions=True)
    states = await rows(fleet, "SELECT state_key, body FROM lane_states")
    windows = {pair: list(msgspec.json.decode(body)["numbers"]) for pair, body in states}
    assert windows == {pair: list(range(load.sent)) for pair in PAIRS}
    keys = [f"{pair}-{number}" for pair in PAIRS for number in range(4, load.sent, 5)]
    assert Counter(fleet.world.read_text().split()) == Counter(keys)
    epochs = [epoch for (epoch,) in await rows(fleet, "SELECT epoch FROM lanes")]
    assert min(epochs) >= 4
    await fleet.store.close()


async def outcomes(fleet: Any) -> list[tuple[Any, ...]]:
    """Event id and outcome of every row."""
    return await rows(fleet, "SELECT event_id, outcome FROM journal")
