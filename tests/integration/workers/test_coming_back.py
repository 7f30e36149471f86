"""Connections break, brokers cancel, workers stop: nothing is lost and nothing done twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from urllib.parse import quote

import pytest

from fleet.broker import Management
from fleet.core.errors import StateError
from topology import names
from workers.context import Context
from workers.registry import Service


@pytest.fixture
def counted(service: Service) -> tuple[Service, Counter[str]]:
    """A service whose handler takes a moment and counts."""
    calls: Counter[str] = Counter()

    @service.handler("test.counted")
    async def on_counted(context: Context, _: dict[str, Any]) -> None:
        await asyncio.sleep(0.01)
        calls[context.event.event_id] += 1

    return service, calls


async def publish(bench: Any, count: int) -> list[Any]:
    """So many events, confirmed."""
    events = [bench.event("test.counted") for _ in range(count)]
    for event in events:
        await bench.publish(event)
    return events


async def test_a_stop_request_finishes_what_runs_and_hands_back_the_rest(bench: Any, counted: Any):
    """After a drain every event is either journalled or in the queue, never both or neither."""
    service, calls = counted
    await bench.lay_out(service)
    events = await publish(bench, 300)
    worker = await bench.start(service, concurrency=2)
    await bench.until(lambda: len(calls) > 20)
    await bench.stop(worker)
    done = await bench.journal(service.name)
    assert set(calls) == set(done)
    assert len(done) < 300

    async def all_back() -> bool:
        # A quorum queue counts what was handed back a moment later.
        return await bench.depth(names.work_queue(service.name)) == 300 - len(done)

    await bench.until(all_back)
    await bench.start(service)
    await bench.settled(service, events)
    assert set(calls.values()) == {1}


async def test_effects_that_were_only_reserved_go_on_elsewhere_at_once(
    bench: Any, service: Service
):
    """What a drain hands back was not tried: nobody waits for its hold, asks or fails it."""
    calls: Counter[str] = Counter()
    leaving, gate = asyncio.Event(), asyncio.Event()

    @service.handler("test.once", effect="once", key=lambda payload: payload["key"], deadline=600)
    async def once(_: Context, payload: dict[str, Any]) -> None:
        calls[payload["key"]] += 1
        leaving.set()
        await gate.wait()

    await bench.lay_out(service)
    events = [bench.event("test.once", {"key": f"{service.name} {n}"}) for n in range(20)]
    for event in events:
        await bench.publish(event)
    first = await bench.start(service, concurrency=1, prefetch=50)
    await leaving.wait()
    await bench.until(lambda: len(first._flow.pool._work._queue) == 19)
    stopping = asyncio.create_task(bench.stop(first))
    await bench.until(lambda: not first._flow.pool._work._queue)
    gate.set()
    await stopping
    await bench.start(service)
    # Long before a hold is over: it is the handler's deadline and 10 s.
    assert set((await bench.settled(service, events)).values()) == {"done"}
    assert set(calls.values()) == {1}


async def test_a_handler_beyond_the_grace_is_given_up(bench: Any, service: Service):
    """A drain ends with its grace; what still ran comes again to the next worker."""
    calls: list[bool] = []

    @service.handler("test.counted", deadline=600)
    async def on_counted(_: Context, __: dict[str, Any]) -> None:
        calls.append(True)
        if len(calls) == 1:
            await asyncio.sleep(600)

    await bench.lay_out(service)
    worker = await bench.start(service, grace_s=0.3)
    [event] = await publish(bench, 1)
    await bench.until(lambda: calls)
    async with asyncio.timeout(60):
        await bench.stop(worker)
    await bench.start(service)
    assert await bench.settled(service, [event]) == {event.event_id: "done"}


async def test_consuming_resumes_when_connections_are_closed(
    bench: Any, counted: Any, management: Management, vhost: str
):
    """An operator closes every connection: each event is handled, journalled once."""
    service, _ = counted
    await bench.lay_out(service)
    worker = await bench.start(service)
    events = await publish(bench, 100)
    await bench.until(lambda: worker.handled > 10)
    await bench.until(lambda: asyncio.to_thread(close_connections, management, vhost, worker.name))
    await bench.settled(service, events)
    late = await publish(bench, 20)
    assert set((await bench.settled(service, late)).values()) == {"done"}


def close_connections(management: Management, vhost: str, worker: str) -> bool:
    """Close the worker's connections as an operator would; False while none is listed."""
    found = [
        quote(one["name"], safe="")
        for one in management.call("GET", "connections")
        if one.get("vhost") == vhost
        and str(one.get("client_properties", {}).get("connection_name", "")).startswith(worker)
    ]
    for name in found:
        management.call("DELETE", f"connections/{name}")
    return bool(found)


async def test_a_consumer_that_the_broker_cancelled_starts_anew(bench: Any, counted: Any):
    """A queue deleted and declared again is consumed again, by the same worker."""
    service, _ = counted
    await bench.lay_out(service)
    worker = await bench.start(service, silence_s=1)
    first = await publish(bench, 5)
    await bench.settled(service, first)
    channel = await bench._connection.channel()
    await channel.queue_delete(names.work_queue(service.name))
    await bench.lay_out(service)
    await bench.until(lambda: worker.consuming)
    second = await publish(bench, 5)
    assert set((await bench.settled(service, second)).values()) == {"done"}


async def test_while_the_store_is_away_nothing_is_decided(
    bench: Any, counted: Any, monkeypatch: pytest.MonkeyPatch
):
    """A store that fails and comes back: deliveries wait, then each is journalled once."""
    service, calls = counted
    await bench.lay_out(service)
    await bench.start(service)
    commit, failures = bench.store.commit, iter(range(3))

    async def away(settled: Any) -> Any:
        if next(failures, None) is not None:
            raise StateError("disk full")
        return await commit(settled)

    monkeypatch.setattr(bench.store, "commit", away)
    events = await publish(bench, 30)
    assert set((await bench.settled(service, events)).values()) == {"done"}
    assert set(calls.values()) == {1}


async def test_a_delivery_that_comes_back_runs_alone(bench: Any, service: Service):
    """A suspect has the worker to itself, and its start is on record before it runs."""
    running: set[str] = set()
    beside: list[set[str]] = []
    starts: list[Any] = []

    @service.handler("test.counted", deadline=60)
    async def on_counted(context: Context, payload: dict[str, Any]) -> None:
        running.add(context.event.event_id)
        await asyncio.sleep(0.05)
        if payload.get("suspect"):
            beside.append(set(running))
            starts.append(
                await bench.store.read(lambda tx: tx.query("SELECT event_id, starts FROM starts"))
            )
        running.remove(context.event.event_id)

    await bench.lay_out(service)
    suspect = bench.event("test.counted", {"suspect": True})
    await bench.publish(suspect)
    queue = await bench._channel.get_queue(names.work_queue(service.name), ensure=False)
    message = await queue.get(timeout=60)
    # From 4.3 on a nack does not count as a return: the broker tells it from a death.
    await message.reject(requeue=True)
    await bench.start(service)
    others = await publish(bench, 20)
    await bench.settled(service, [suspect, *others])
    assert beside == [{suspect.event_id}]
    assert starts == [[(suspect.event_id, 1)]]
    left = await bench.store.read(lambda tx: tx.query("SELECT * FROM starts"))
    assert left == []
