"""How many events a second one worker process handles, beside bare aio-pika on the same queue."""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import aio_pika

from fleet.amqp.admin import Admin
from fleet.amqp.connection import Link
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.events import Event, write_event
from fleet.core.ulid import make_ulid
from fleet.store import Store, bindings, open_store
from topology import names
from topology.apply import apply
from topology.model import QueueType, ServiceLayout
from topology.plan import plan
from workers.context import Context
from workers.registry import EffectClass, Service
from workers.settings import WorkerSettings
from workers.worker import Worker

EVENT_TYPE = "bench.event"
DEADLINE_S = 300.0
IN_FLIGHT = 400


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure."""

    amqp_url: str
    events: int = 50_000
    effect: EffectClass = "pure"
    queue_type: QueueType = "quorum"
    prefetch: int = 1_000
    bare: bool = False


async def run(options: Options) -> dict[str, Any]:
    """Fill the queue, handle everything in it, and say how fast that was."""
    service = _service(options.effect)
    async with _laid_out(service, options) as store:
        await _fill(options, names.work_queue(service.name))
        cpu = time.process_time()
        seconds = await _work(service, options, store)
        cpu = time.process_time() - cpu
        figures: dict[str, Any] = {
            "events": options.events,
            "effect": options.effect,
            "queue_type": options.queue_type,
            "events_per_second": round(options.events / seconds),
            "cpu_us_per_event": round(cpu / options.events * 1e6, 1),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }
        if options.bare:
            await _fill(options, names.work_queue(service.name))
            bare = await _bare(options, names.work_queue(service.name))
            figures["bare_events_per_second"] = round(options.events / bare)
            figures["ratio_to_bare"] = round(bare / seconds, 2)
        return figures


def _service(effect: EffectClass) -> Service:
    service = Service(f"bench.b{secrets.token_hex(4)}")
    key = (lambda payload: cast("str", payload["key"])) if effect == "once" else None

    @service.handler(EVENT_TYPE, effect=effect, key=key)
    async def handle(context: Context, payload: dict[str, Any]) -> None:
        if context.effect is not None:
            context.effect.done(payload["number"])

    return service


@asynccontextmanager
async def _laid_out(service: Service, options: Options) -> AsyncIterator[Store]:
    layout = plan([service.layout()], queue_type=options.queue_type)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{folder}/bench.sqlite3")
        await store.open()
        try:
            async with await Admin.open(options.amqp_url) as admin:
                applied = await apply(layout, admin)
            patterns = applied.patterns[service.name]
            await store.run(lambda tx: bindings.record(tx, service.name, patterns, 0))
            yield store
        finally:
            await store.close()
            await _remove(service.layout(), options.amqp_url)


async def _remove(layout: ServiceLayout, url: str) -> None:
    buckets = [names.retry(layout.name, number) for number in range(layout.buckets)]
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        for queue in [names.work_queue(layout.name), names.failed(layout.name), *buckets]:
            await channel.queue_delete(queue)


async def _fill(options: Options, queue: str) -> None:
    link = Link(options.amqp_url, "bench fill")
    async with link, ConfirmedPublisher(link, timeout_s=60.0) as publisher:
        pending: set[asyncio.Task[None]] = set()
        for number in range(options.events):
            if len(pending) >= IN_FLIGHT:
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            event = _event(number)
            headers = {"x-event-id": event.event_id}
            body = write_event(event)
            pending.add(
                asyncio.create_task(
                    publisher.publish(names.REDELIVER, queue, body, headers=headers)
                )
            )
        await asyncio.gather(*pending)


def _event(number: int) -> Event:
    now_ms = time.time_ns() // 1_000_000
    return Event(
        event_id=make_ulid(now_ms, os.urandom(10)),
        type=EVENT_TYPE,
        agent_id="pf_agent_bench",
        payload={
            "number": number,
            "key": secrets.token_hex(16),
            "pair": "BTC/USDT",
            "pad": "x" * 80,
        },
        ts=now_ms,
    )


async def _work(service: Service, options: Options, store: Store) -> float:
    settings = WorkerSettings(amqp_url=options.amqp_url, prefetch=options.prefetch)
    worker, stop = Worker(service, settings, store), asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    while not worker.is_consuming:
        await asyncio.sleep(0.001)
    began = time.perf_counter()
    async with asyncio.timeout(DEADLINE_S):
        while worker.handled < options.events and not running.done():
            await asyncio.sleep(0.005)
    seconds = time.perf_counter() - began
    stop.set()
    await running
    return seconds


async def _bare(options: Options, queue: str) -> float:
    """The same number of messages through aio-pika as its documentation shows it."""
    connection = await aio_pika.connect(options.amqp_url)
    async with connection, connection.channel() as channel:
        await channel.set_qos(prefetch_count=options.prefetch)
        source = await channel.get_queue(queue)
        handled, done = 0, asyncio.Event()

        async def handle(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            nonlocal handled
            await message.ack()
            handled += 1
            if handled >= options.events:
                done.set()

        began = time.perf_counter()
        await source.consume(handle)
        async with asyncio.timeout(DEADLINE_S):
            await done.wait()
        return time.perf_counter() - began
