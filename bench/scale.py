"""More replicas, more events: handlers that wait, in processes of their own, on one queue."""

from __future__ import annotations

import asyncio
import multiprocessing
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Final, Literal, cast

import uvloop

from bench.consume import EVENT_TYPE, fill, laid_out
from fleet.store import open_store
from fleet.telemetry import log as logs
from topology import names
from topology.model import QueueType
from workers.context import Context
from workers.job import Job
from workers.registry import EffectClass, Service
from workers.settings import WorkerSettings
from workers.worker import Worker

WAIT_S: Final = 0.02
CONCURRENCY: Final = 10
WARM_UP_S: Final = 4.0
"""Until the prefetch has found its size."""
WINDOW_S: Final = 5.0
IN_HAND: Final = 100
"""The prefetch of those that go: enough that most of it has to go back."""
QUIET_S: Final = 90.0
"""What nobody had for so long is lost: a hold of a handler's effect runs out before."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure."""

    amqp_url: str
    replicas: Sequence[int] = (1, 2, 4, 8)
    effect: EffectClass = "idempotent"
    queue_type: QueueType = "quorum"
    store: str = ""
    handler_s: float = WAIT_S


@dataclass(slots=True)
class Told:
    """What one replica did."""

    numbers: Counter[int]
    """How often it had the effect of each event."""
    came_again: int = 0
    """Deliveries that somebody had before."""
    most_counted: int = 0
    """The most that the broker counts towards the delivery limit of one of them."""


async def run(options: Options) -> dict[str, Any]:
    """Events a second for each number of replicas, and what half of the most leave behind."""
    rates = {count: await _rate(options, count) for count in options.replicas}
    first, most = min(rates), max(rates)
    return {
        "handler_ms": options.handler_s * 1000,
        "concurrency": CONCURRENCY,
        "effect": options.effect,
        "queue_type": options.queue_type,
        "events_per_second": {str(count): round(rate) for count, rate in rates.items()},
        "ratio": round(rates[most] / rates[first], 2),
        "scale_in": await scale_in(options, most, most * 2_000),
    }


async def _rate(options: Options, count: int) -> float:
    """Events a second of so many replicas, while the queue never runs empty."""
    best = CONCURRENCY / options.handler_s
    events = round(count * best * (WARM_UP_S + WINDOW_S) * 1.5)
    async with _replicas(options, options.effect, count, events) as replicas:
        await asyncio.sleep(WARM_UP_S)
        before, began = await _had(replicas), time.perf_counter()
        await asyncio.sleep(WINDOW_S)
        after, seconds = await _had(replicas), time.perf_counter() - began
        return (after - before) / seconds


async def scale_in(options: Options, count: int, events: int) -> dict[str, Any]:
    """Ask half of the replicas to stop in the midst of the work; what became of every event."""
    async with _replicas(options, "once", count, events, prefetch=IN_HAND) as replicas:
        await _until(replicas, events // 4)
        leaving, staying = replicas[: count // 2], replicas[count // 2 :]
        told = await asyncio.gather(*(each.stop() for each in leaving))
        left = events - sum(each.numbers.total() for each in told)
        await _until(staying, left)
        told += await asyncio.gather(*(each.stop() for each in staying))
    numbers = sum((each.numbers for each in told), Counter[int]())
    return {
        "replicas": count,
        "events": events,
        "lost": events - len(numbers),
        "doubled": numbers.total() - len(numbers),
        "came_again": sum(each.came_again for each in told),
        "most_counted": max(each.most_counted for each in told),
    }


class _Replica:
    """A worker in a process of its own, and the pipe to it."""

    def __init__(self, process: SpawnProcess, pipe: Connection) -> None:
        self.process = process
        self._pipe = pipe

    async def ready(self) -> None:
        await asyncio.to_thread(self._pipe.recv)

    async def had(self) -> int:
        """How many effects it had. What it only put off, or found done, is not among them."""
        self._pipe.send("had")
        return cast("int", await asyncio.to_thread(self._pipe.recv))

    async def stop(self) -> Told:
        """Drain it, as a stop request does."""
        self._pipe.send("stop")
        return cast("Told", await asyncio.to_thread(self._pipe.recv))


async def _had(replicas: Sequence[_Replica]) -> int:
    return sum(await asyncio.gather(*(each.had() for each in replicas)))


async def _until(replicas: Sequence[_Replica], count: int) -> None:
    """Return once they had `count` effects, or had no other for QUIET_S."""
    most, since = -1, time.monotonic()
    while (had := await _had(replicas)) < count and time.monotonic() - since < QUIET_S:
        if had > most:
            most, since = had, time.monotonic()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def _replicas(
    options: Options,
    effect: EffectClass,
    count: int,
    events: int,
    prefetch: int | Literal["auto"] = "auto",
) -> AsyncIterator[list[_Replica]]:
    """So many replicas that all consume a queue with so many events."""
    name = f"bench.b{secrets.token_hex(4)}"
    service = _service(name, effect, options.handler_s, Counter())
    with tempfile.TemporaryDirectory() as folder:
        store_url = options.store or f"sqlite:///{folder}/bench.sqlite3"
        async with laid_out(service, options.amqp_url, options.queue_type, store_url):
            await fill(options.amqp_url, events, names.work_queue(name))
            settings = {"amqp_url": options.amqp_url, "prefetch": prefetch}
            service_of = (name, effect, options.handler_s)
            replicas = [_start(settings, store_url, service_of) for _ in range(count)]
            try:
                await asyncio.gather(*(each.ready() for each in replicas))
                yield replicas
            finally:
                for each in replicas:
                    each.process.kill()
                    each.process.join()


def _start(
    settings: dict[str, Any], store_url: str, service: tuple[str, EffectClass, float]
) -> _Replica:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_work, args=(settings, store_url, service, theirs)
    )
    process.start()
    theirs.close()
    return _Replica(process, ours)


def _service(name: str, effect: EffectClass, handler_s: float, numbers: Counter[int]) -> Service:
    service = Service(name)
    key = (lambda payload: cast("str", payload["key"])) if effect == "once" else None

    @service.handler(EVENT_TYPE, effect=effect, key=key)
    async def wait(context: Context, payload: dict[str, Any]) -> None:
        numbers[payload["number"]] += 1
        await asyncio.sleep(handler_s)
        if context.effect is not None:
            context.effect.done(payload["number"])

    return service


def _work(
    settings: dict[str, Any],
    store_url: str,
    service: tuple[str, EffectClass, float],
    pipe: Connection,
) -> None:
    """The replica's process: answers over its pipe until it is asked to stop."""
    logs.configure(level="warning")
    told = Told(Counter())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_handle(_service(*service, told.numbers), settings, store_url, told, pipe))
    pipe.send(told)


async def _handle(
    service: Service, given: dict[str, Any], store_url: str, told: Told, pipe: Connection
) -> None:
    def settled(job: Job) -> None:
        told.came_again += job.delivery.redelivered
        if job.delivery.redelivered:
            counted = job.delivery.headers.get("x-delivery-count", 0)
            told.most_counted = max(told.most_counted, counted)

    store = open_store(store_url)
    await store.open()
    settings = WorkerSettings(concurrency=CONCURRENCY, **given)
    worker, stop = Worker(service, settings, store, settled=settled), asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    while not worker.consuming:
        await asyncio.sleep(0.01)
    pipe.send("consuming")
    while await asyncio.to_thread(pipe.recv) != "stop":
        pipe.send(told.numbers.total())
    stop.set()
    await running
    await store.close()
