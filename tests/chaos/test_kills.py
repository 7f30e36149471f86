"""Workers die at every step: nothing confirmed is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from contextlib import suppress
from typing import Any

import aio_pika
import msgspec
import pytest

from fleet import clock
from fleet.core.errors import StateError
from fleet.core.events import Event, write_event
from fleet.core.ulid import make_ulid
from fleet.store import replicas
from topology import names

DEADLINE_S = 200
OUT_OF_MEMORY_MB = 400
PAIRS = ["A/USD", "B/USD", "C/USD"]


def event(kind: str, payload: dict[str, Any]) -> Event:
    """A fresh event."""
    now_ms = clock.now_ms()
    return Event(make_ulid(now_ms, os.urandom(10)), kind, "pf_agent_test", payload, now_ms)


async def publish(fleet: Any, events: list[Event]) -> None:
    """Publish, confirmed, as the bridge does."""
    connection = await aio_pika.connect(fleet.url)
    async with connection, connection.channel(on_return_raises=True) as channel:
        ingest = await channel.get_exchange(names.INGEST, ensure=False)
        for one in events:
            headers: dict[str, Any] = {"x-event-id": one.event_id}
            if one.type == "market.tick":
                headers["partition"] = names.partition(one.payload["pair"], 4)
            message = aio_pika.Message(write_event(one), headers=headers, delivery_mode=2)
            await ingest.publish(message, one.type)


async def journal(fleet: Any) -> dict[str, str]:
    """The outcome of each event."""
    rows = await fleet.store.read(lambda tx: tx.query("SELECT event_id, outcome FROM journal"))
    return dict(rows)


async def keep_alive(fleet: Any, workers: int, die: float) -> None:
    """Start a worker in the place of each that died, for ever."""
    numbers = dict.fromkeys(range(workers), 0)
    for number in numbers:
        fleet.start(f"worker-{number}-0", die=die)
    while True:
        await asyncio.sleep(0.1)
        for number, life in numbers.items():
            if fleet.is_dead(f"worker-{number}-{life}"):
                numbers[number] += 1
                # The longer it goes on the gentler, so that it ends.
                fleet.start(f"worker-{number}-{life + 1}", die=die if life < 4 else 0)


@pytest.fixture
async def store(fleet: Any) -> Any:
    """The fleet's store, open."""
    await fleet.store.open()
    yield fleet.store
    await fleet.store.close()


@pytest.mark.usefixtures("store")
async def test_workers_that_die_anywhere_lose_and_double_nothing(fleet: Any):
    """Deaths before, in and after the effect: each effect once, each window without a gap."""
    ticks = [
        event("market.tick", {"pair": pair, "price": 1, "timestamp_ms": n, "number": n})
        for n in range(60)
        for pair in PAIRS
    ]
    nurse = asyncio.create_task(keep_alive(fleet, workers=2, die=0.02))
    try:
        await publish(fleet, ticks)
        async with asyncio.timeout(DEADLINE_S):
            while Counter((await journal(fleet)).values())["done"] < 60 * 3 + 12 * 3:
                assert not nurse.done(), nurse.result()
                await asyncio.sleep(0.1)
    finally:
        nurse.cancel()
    outcomes = await journal(fleet)
    assert set(outcomes.values()) == {"done"}
    assert {one.event_id for one in ticks} <= set(outcomes)
    effects = Counter(fleet.world.read_text().split())
    assert effects == Counter(f"{pair}-{n}" for pair in PAIRS for n in range(4, 60, 5))
    rows = await fleet.store.read(lambda tx: tx.query("SELECT state_key, body FROM lane_states"))
    windows = {pair: msgspec.json.decode(body)["numbers"] for pair, body in rows}
    assert windows == {pair: list(range(60)) for pair in PAIRS}


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("kind", ["test.killer", "test.hungry"])
async def test_a_message_that_kills_its_worker_takes_nobody_along(fleet: Any, kind: str):
    """A killer among a hundred prefetched is parked after its starts; the innocent are done.

    One ends its process, one eats its memory until the kernel's killer comes: here the test.
    """
    events = [event("test.plain", {"n": n}) for n in range(99)]
    killer = event(kind, {})
    events.insert(60, killer)
    await publish(fleet, events)
    lives = 0
    async with asyncio.timeout(DEADLINE_S):
        while len(await journal(fleet)) < 100:
            if lives == 0 or fleet.is_dead(f"worker-{lives}"):
                lives += 1
                fleet.start(f"worker-{lives}", prefetch=100)
            if fleet.memory_mb(f"worker-{lives}") > OUT_OF_MEMORY_MB:
                fleet.kill(f"worker-{lives}")
            await asyncio.sleep(0.1)
    outcomes = await journal(fleet)
    assert outcomes.pop(killer.event_id) == "failed"
    assert Counter(outcomes.values()) == {"done": 99}
    # Once among the others, three times alone with a start on record, and then no more.
    assert lives == 5


@pytest.mark.usefixtures("store")
async def test_a_killed_worker_leaves_its_lanes_to_the_others(fleet: Any):
    """Kill -9 of a lane's owner: another worker goes on, with the window as it was."""
    first = [
        event("market.tick", {"pair": pair, "price": 1, "timestamp_ms": n, "number": n})
        for n in range(20)
        for pair in PAIRS
    ]
    second = [
        event("market.tick", {"pair": pair, "price": 1, "timestamp_ms": n, "number": n})
        for n in range(20, 40)
        for pair in PAIRS
    ]
    fleet.start("worker-1")
    await publish(fleet, first)
    async with asyncio.timeout(DEADLINE_S):
        while len(await journal(fleet)) < 60:
            await asyncio.sleep(0.05)
    fleet.start("worker-2")
    fleet.kill("worker-1")
    await publish(fleet, second)
    async with asyncio.timeout(DEADLINE_S):
        while not {one.event_id for one in second} <= set(await journal(fleet)):
            await asyncio.sleep(0.05)
    rows = await fleet.store.read(lambda tx: tx.query("SELECT state_key, body FROM lane_states"))
    windows = {pair: msgspec.json.decode(body)["numbers"] for pair, body in rows}
    for pair in PAIRS:
        assert windows[pair] == list(range(40))


async def ended(fleet: Any, count: int) -> bool:
    """Whether so many events have a row; False while the store is away."""
    with suppress(StateError):
        return len(await journal(fleet)) >= count
    return False


async def test_a_store_that_dies_delays_and_nothing_else(fleet_over: Any, fresh_postgres: Any):
    """Kill -9 of PostgreSQL under load, and of a worker: each effect once, nothing unaccounted."""
    fleet = fleet_over(fresh_postgres.url)
    await fleet.store.open()
    ticks = [
        event("market.tick", {"pair": pair, "price": 1, "timestamp_ms": n, "number": n})
        for n in range(300)
        for pair in PAIRS
    ]
    orders = {f"{pair}-{n}" for pair in PAIRS for n in range(4, 300, 5)}
    for number in range(2):
        fleet.start(f"worker-{number}")
    publishing = asyncio.create_task(publish(fleet, ticks))
    async with asyncio.timeout(DEADLINE_S):
        for wanted in (50, 300):
            while not await ended(fleet, wanted):
                await asyncio.sleep(0.02)
            await asyncio.to_thread(fresh_postgres.kill)
            if wanted == 300:
                fleet.kill("worker-0")
            await asyncio.sleep(1)
            await asyncio.to_thread(fresh_postgres.start)
        while not await ended(fleet, len(ticks) + len(orders)):
            await asyncio.sleep(0.05)
    await publishing
    assert Counter(fleet.world.read_text().split()) == Counter(orders)
    assert set((await journal(fleet)).values()) == {"done"}
    rows = await fleet.store.read(lambda tx: tx.query("SELECT state_key, body FROM lane_states"))
    windows = {pair: msgspec.json.decode(body)["numbers"] for pair, body in rows}
    assert windows == {pair: list(range(300)) for pair in PAIRS}
    audit = json.loads(
        await asyncio.to_thread(fleet.run, "audit", "--handlers", "mine:service", "--json")
    )
    assert (audit["unaccounted"], audit["doubled"]) == ([], 0)
    await fleet.store.close()


@pytest.mark.usefixtures("store")
async def test_a_kill_is_no_way_around_a_pause(fleet: Any):
    """Killed and started again under their names while paused: nothing begins, nothing is lost."""
    ticks = [
        event("market.tick", {"pair": pair, "price": 1, "timestamp_ms": n, "number": n})
        for n in range(40)
        for pair in PAIRS
    ]
    workers = ("worker-1", "worker-2")
    for name in workers:
        fleet.start(name)
    await publish(fleet, ticks[:60])
    fleet.run("pause", "--service", fleet.service, "--note", "a test")
    async with asyncio.timeout(DEADLINE_S):
        while await says(fleet) != dict.fromkeys(workers, "paused"):
            await asyncio.sleep(0.1)
    for name in workers:
        fleet.kill(name)
    before = set(await journal(fleet))
    await publish(fleet, ticks[60:])
    born = clock.now_ms()
    for name in workers:
        fleet.start(name)
    async with asyncio.timeout(DEADLINE_S):
        while await says(fleet, since_ms=born) != dict.fromkeys(workers, "paused"):
            await asyncio.sleep(0.1)
    assert set(await journal(fleet)) == before
    fleet.run("resume", "--service", fleet.service)
    async with asyncio.timeout(DEADLINE_S):
        while Counter((await journal(fleet)).values())["done"] < 40 * 3 + 8 * 3:
            await asyncio.sleep(0.1)
    assert set((await journal(fleet)).values()) == {"done"}
    effects = Counter(fleet.world.read_text().split())
    assert effects == Counter(f"{pair}-{n}" for pair in PAIRS for n in range(4, 40, 5))
    rows = await fleet.store.read(lambda tx: tx.query("SELECT state_key, body FROM lane_states"))
    windows = {pair: msgspec.json.decode(body)["numbers"] for pair, body in rows}
    assert windows == {pair: list(range(40)) for pair in PAIRS}


async def says(fleet: Any, since_ms: int = 0) -> dict[str, str]:
    """What each worker that was started since then says that it does, once it has nothing in hand.

    Else what it still commits could come to light after it was killed.
    """
    found = await fleet.store.read(replicas.every)
    return {
        each.name: "busy" if each.pulse.in_hand else each.pulse.state
        for each in found
        if each.started_ms >= since_ms
    }
