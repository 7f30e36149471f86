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
from typing import Any, ClassVar, cast

import aio_pika

from fleet import clock
from fleet.amqp.admin import Admin
from fleet.amqp.connection import Link
from fleet.amqp.delivery import Delivery
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.amqp.removal import remove
from fleet.core.envelope import event_headers
from fleet.core.events import Event, write_event
from fleet.core.ulid import make_ulid
from fleet.settings import SigningSettings, load
from fleet.store import Store, bindings, open_store
from topology import names
from topology.apply import apply
from topology.model import QueueType, ServiceLayout
from topology.plan import plan
from workers.context import Context
from workers.job import Job
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
    store: str = ""


async def run(options: Options) -> dict[str, Any]:
    """Fill the queue, handle everything in it, and say how fast that was.

    p50 and p99 are milliseconds that an event is in the worker's hands, to its ack.
    """
    service = _service(options.effect)
    queue = names.work_queue(service.name)
    with tempfile.TemporaryDirectory() as folder:
        store_url = options.store or f"sqlite:///{folder}/bench.sqlite3"
        async with laid_out(service, options.amqp_url, options.queue_type, store_url) as store:
            await fill(options.amqp_url, options.events, queue)
            figures = await _work(service, options, store)
            if options.bare:
                await fill(options.amqp_url, options.events, queue)
                bare = options.events / await _bare(options, queue)
                figures["bare"] = {"events_per_second": round(bare)}
                figures["ratio"] = round(figures["events_per_second"] / bare, 2)
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
async def laid_out(
    service: Service, amqp_url: str, queue_type: QueueType, store_url: str
) -> AsyncIterator[Store]:
    """The service's topology on the broker, removed afterwards; its open store."""
    store = open_store(store_url)
    await store.open()
    try:
        async with await Admin.open(amqp_url) as admin:
            applied = await apply(plan([service.layout()], queue_type=queue_type), admin)
        patterns = applied.patterns[service.name]
        await store.run(lambda tx: bindings.record(tx, service.name, patterns, 0))
        yield store
    finally:
        await store.close()
        await _remove(service.layout(), amqp_url)


async def _remove(layout: ServiceLayout, url: str) -> None:
    whole = plan([layout])
    own = [queue.name for queue in whole.queues if layout.name in queue.name]
    exchanges = [exchange.name for exchange in whole.exchanges if layout.name in exchange.name]
    await remove(url, exchanges, own)


async def fill(amqp_url: str, events: int, queue: str) -> None:
    """Put so many events into a queue, numbered from 0."""
    link, keys = Link(amqp_url, "bench fill"), load(SigningSettings).keys()
    async with link, ConfirmedPublisher(link, timeout_s=60.0) as publisher:
        pending: set[asyncio.Task[None]] = set()
        for number in range(events):
            if len(pending) >= IN_FLIGHT:
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            event = _event(number)
            body = write_event(event)
            headers = event_headers(event)
            if keys is not None:
                headers = keys.stamped(headers, body)
            pending.add(
                asyncio.create_task(
                    publisher.publish(names.REDELIVER, queue, body, headers=headers)
                )
            )
        await asyncio.gather(*pending)


def _event(number: int) -> Event:
    now_ms = clock.now_ms()
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


class _Timed(Worker):
    """Notes, for one event in 32, how long it was in our hands."""

    waits: ClassVar[list[float]] = []

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._since: dict[int, float] = {}
        hand_over = self._flow.consumers._on_delivery  # noqa: SLF001 - measured where it comes in

        def timed(delivery: Delivery) -> None:
            if not delivery.tag & 31:
                self._since[delivery.tag] = time.perf_counter()
            hand_over(delivery)

        self._flow.consumers._on_delivery = timed  # noqa: SLF001

    def _on_settled(self, job: Job) -> None:
        super()._on_settled(job)
        since = self._since.pop(job.delivery.tag, None)
        if since is not None:
            self.waits.append(time.perf_counter() - since)


async def _work(service: Service, options: Options, store: Store) -> dict[str, Any]:
    settings = WorkerSettings(amqp_url=options.amqp_url, prefetch=options.prefetch)
    worker, stop = _Timed(service, settings, store), asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    while not worker.consuming:
        await asyncio.sleep(0.001)
    began, cpu = time.perf_counter(), time.process_time()
    async with asyncio.timeout(DEADLINE_S):
        while worker.handled < options.events and not running.done():
            await asyncio.sleep(0.005)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    stop.set()
    await running
    waits = sorted(worker.waits)
    return {
        "events": options.events,
        "effect": options.effect,
        "queue_type": options.queue_type,
        "events_per_second": round(options.events / seconds),
        "p50_ms": round(waits[len(waits) // 2] * 1000, 2),
        "p99_ms": round(waits[len(waits) * 99 // 100] * 1000, 2),
        "cpu_us_per_event": round(cpu / options.events * 1e6, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


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
