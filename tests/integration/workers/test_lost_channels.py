"""A channel is lost, or a grace is over, between two steps: nobody innocent pays for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec

from fleet.core.errors import NetworkError, RefusedError
from fleet.store import lanes
from topology import names
from topology.model import Lanes
from workers.context import Context
from workers.pool import MAX_STARTS
from workers.registry import Service
from workers.worker import Worker


class Seen(msgspec.Struct, frozen=True):
    """The numbers of a pair seen so far."""

    numbers: tuple[int, ...] = ()


def tick(bench: Any, number: int) -> Any:
    """A tick of one pair that carries its number."""
    payload = {"pair": "P0/USD", "price": 1, "timestamp_ms": number, "number": number}
    return bench.event("market.tick", payload)


def lane_of(service: Service) -> str:
    """The lane of the ticks."""
    return names.lane(service.name, "market.tick", names.partition("P0/USD", 16))


async def lose(bench: Any, worker: Worker, queue: str) -> None:
    """Close the channel that the worker consumes a queue by, and wait until it is another one."""
    subscription = worker._flow.consumers.all[queue]
    before = subscription._consumer
    worker._flow.consumers.restart(queue)
    await bench.until(lambda: subscription.is_consuming and subscription._consumer is not before)


async def test_a_refusal_is_parked_whatever_becomes_of_its_channel(bench: Any, service: Service):
    """Refused while the channel was lost: it waits for a person, it is not passed over."""
    calls, gate = Counter[str](), asyncio.Event()

    @service.handler("test.refused", effect="once", key=lambda payload: payload["key"])
    async def refused(_: Context, payload: dict[str, Any]) -> None:
        calls[payload["key"]] += 1
        await gate.wait()
        raise RefusedError("no such account")

    await bench.lay_out(service)
    event = bench.event("test.refused", {"key": service.name})
    await bench.publish(event)
    worker = await bench.start(service)
    await bench.until(lambda: calls)
    await lose(bench, worker, names.work_queue(service.name))
    gate.set()
    assert await bench.settled(service, [event]) == {event.event_id: "failed"}
    message = await bench.take(names.failed(service.name))
    assert message.headers["x-error-type"] == "RefusedError"


async def test_what_waits_for_one_that_runs_alone_is_handed_back_untouched(
    bench: Any, service: Service
):
    """A grace that ends while others wait at its door: they were not begun, and are not failed."""
    calls, running = Counter[str](), asyncio.Event()

    @service.handler("test.slow", deadline=600)
    async def slow(_: Context, __: dict[str, Any]) -> None:
        calls["slow"] += 1
        running.set()
        if calls["slow"] == 1:
            await asyncio.sleep(600)

    @service.handler("test.once", effect="once", key=lambda payload: payload["key"])
    async def once(_: Context, payload: dict[str, Any]) -> None:
        calls[payload["key"]] += 1

    await bench.lay_out(service)
    suspect = bench.event("test.slow")
    await bench.publish(suspect)
    queue = await bench._channel.get_queue(names.work_queue(service.name), ensure=False)
    await (await queue.get(timeout=60)).reject(requeue=True)
    worker = await bench.start(service, concurrency=4, prefetch=50, grace_s=5)
    await running.wait()
    events = [bench.event("test.once", {"key": f"{service.name} {n}"}) for n in range(8)]
    for event in events:
        await bench.publish(event)
    await bench.until(lambda: worker._flow.pool._work.qsize() == len(events) - 4)
    await bench.stop(worker)
    await bench.start(service)
    assert set((await bench.settled(service, events)).values()) == {"done"}
    assert {calls[event.payload["key"]] for event in events} == {1}


async def test_a_lane_that_comes_back_to_the_same_worker_keeps_its_order(
    bench: Any, service: Service
):
    """Ticks that come again wait for those in hand, and newer ones do not overtake them."""
    service.lanes = Lanes()
    order: list[int] = []
    began, gate = asyncio.Event(), asyncio.Event()

    @service.handler("market.tick", state=Seen, deadline=600)
    async def on_tick(context: Context, payload: dict[str, Any]) -> None:
        began.set()
        await gate.wait()
        seen = context.state or Seen()
        order.append(payload["number"])
        context.keep(Seen((*seen.numbers, payload["number"])))

    await bench.lay_out(service)
    worker = await bench.start(service)
    events = [tick(bench, number) for number in range(10)]
    for event in events[:5]:
        await bench.publish(event)
    lane = lane_of(service)
    await bench.until(lambda: lane in worker._flow.consumers.all)
    await bench.until(lambda: worker._flow.consumers.all[lane].in_hand == 5)
    await began.wait()
    await lose(bench, worker, lane)
    for event in events[5:]:
        await bench.publish(event)
    in_hand = worker._flow._intake._in_hand
    await bench.until(lambda: len(in_hand.get(events[0].event_id, ())) == len(events))
    gate.set()
    await bench.settled(service, events)
    rows = await bench.store.read(
        lambda tx: tx.query("SELECT body FROM lane_states WHERE service = ?", (service.name,))
    )
    assert msgspec.json.decode(rows[0][0])["numbers"] == list(range(10))
    assert list(dict.fromkeys(order)) == list(range(10))


async def test_who_loses_its_channel_again_and_again_is_no_killer(bench: Any, service: Service):
    """It runs alone, its channel is lost, and it is to be tried again: that kills nobody."""
    calls = 0
    worker: Worker

    @service.handler("test.flapping", deadline=600)
    async def flapping(_: Context, __: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        if calls <= MAX_STARTS + 1:
            await lose(bench, worker, names.work_queue(service.name))
            raise NetworkError("so is the platform")

    await bench.lay_out(service)
    worker = await bench.start(service)
    event = bench.event("test.flapping")
    await bench.publish(event)
    assert await bench.settled(service, [event]) == {event.event_id: "done"}


async def test_a_lane_taken_behind_our_back_leaves_nothing_in_our_hands(
    bench: Any, service: Service
):
    """A lane that was taken from us for a moment: what we had of it comes again, all of it."""
    service.lanes = Lanes()
    running, gate = asyncio.Event(), asyncio.Event()

    @service.handler("market.tick", state=Seen)
    def on_tick(context: Context, payload: dict[str, Any]) -> None:
        seen = context.state or Seen()
        context.keep(Seen((*seen.numbers, payload["number"])))

    @service.handler("test.alone", deadline=600)
    async def alone(_: Context, __: dict[str, Any]) -> None:
        running.set()
        await gate.wait()

    await bench.lay_out(service)
    suspect = bench.event("test.alone")
    await bench.publish(suspect)
    queue = await bench._channel.get_queue(names.work_queue(service.name), ensure=False)
    await (await queue.get(timeout=60)).reject(requeue=True)
    worker = await bench.start(service)
    await running.wait()
    lane = lane_of(service)
    await bench.until(lambda: lane in worker._flow.consumers.all)
    events = [tick(bench, number) for number in range(6)]
    for event in events[:3]:
        await bench.publish(event)
    await bench.until(lambda: lane in worker._flow.pool._lane_work)
    held = worker._flow._lanes.get(lane)
    await bench.store.run(lambda tx: lanes.take(tx, service.name, lane, "who was frozen"))
    for event in events[3:]:
        await bench.publish(event)
    await bench.until(lambda: worker._flow._lanes.get(lane) is not held)
    gate.set()
    await bench.settled(service, events)
    rows = await bench.store.read(
        lambda tx: tx.query("SELECT body FROM lane_states WHERE service = ?", (service.name,))
    )
    assert msgspec.json.decode(rows[0][0])["numbers"] == list(range(6))
