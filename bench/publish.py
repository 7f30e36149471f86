"""How fast events are published and confirmed, beside plain aio-pika on the same broker."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import time
import uuid
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import aio_pika
import uvloop

from fleet.amqp.connection import Link
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.errors import PublishError

BARE_IN_FLIGHT = 200
BODY = json.dumps(
    {
        "eventId": "01K7QZ3V8E0000000000000001",
        "type": "market.tick",
        "agentId": "pf_agent_bench",
        "payload": {"pair": "BTC-USDT", "price": 61234.5, "timestamp_ms": 1_790_000_000_000},
        "ts": 1_790_000_000_000,
    }
).encode()


@dataclass(frozen=True)
class Options:
    """What to measure."""

    events: int = 30_000
    queue_type: str = "quorum"
    amqp: str = "amqp://guest:guest@127.0.0.1:5672/"
    bare: bool = False
    channels: int = 4
    window: int = 512


@dataclass(frozen=True, slots=True)
class Figures:
    """Events a second, milliseconds from publish to confirm, and the process's memory."""

    events: int
    events_per_second: float
    p50_ms: float
    p99_ms: float
    peak_memory_mb: float


def run(options: Options) -> dict[str, Any]:
    """The publisher's figures; with `bare` those of plain aio-pika as well, and their ratio."""
    figures: dict[str, Any] = {"queue_type": options.queue_type, **_apart("fleet", options)}
    if options.bare:
        bare = _apart("bare", options)
        figures["bare"] = bare
        figures["ratio"] = round(figures["events_per_second"] / bare["events_per_second"], 2)
    return figures


def _apart(name: str, options: Options) -> dict[str, Any]:
    """Each runs in a process of its own, so that neither's memory counts for the other."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return asdict(pool.apply(_measure, (name, options)))


def _measure(name: str, options: Options) -> Figures:
    work = _fleet if name == "fleet" else _bare
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_on_a_queue(work, options))


async def _on_a_queue(work: Any, options: Options) -> Figures:
    async with _queue(options) as exchange:
        waits: list[float] = []
        began = time.perf_counter()
        await work(options, exchange, waits)
        seconds = time.perf_counter() - began
    waits.sort()
    return Figures(
        events=len(waits),
        events_per_second=round(len(waits) / seconds, 1),
        p50_ms=round(waits[len(waits) // 2] * 1000, 2),
        p99_ms=round(waits[len(waits) * 99 // 100] * 1000, 2),
        peak_memory_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    )


@asynccontextmanager
async def _queue(options: Options) -> AsyncGenerator[str, None]:
    """A queue behind a topic exchange of its own, gone afterwards; the exchange's name."""
    name = f"bench.{uuid.uuid4().hex[:12]}"
    async with await aio_pika.connect(options.amqp) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(name, "topic", durable=True)
        arguments: dict[str, Any] = {"x-queue-type": options.queue_type}
        queue = await channel.declare_queue(name, durable=True, arguments=arguments)
        await queue.bind(exchange, "#")
        try:
            yield name
        finally:
            await queue.delete(if_unused=False, if_empty=False)
            await exchange.delete()


async def _fleet(options: Options, exchange: str, waits: list[float]) -> None:
    link = Link(options.amqp, "bench")
    async with (
        link,
        ConfirmedPublisher(link, channels=options.channels, window=options.window) as publisher,
    ):
        for number in range(options.events):
            if not publisher.free:
                await publisher.room()
            publisher.post(
                exchange,
                "market.tick",
                BODY,
                headers=_headers(number),
                settled=partial(_note, waits, time.perf_counter()),
                lane=number % 16,
            )
        await publisher.drain(60.0)


def _note(waits: list[float], since: float, error: PublishError | None) -> None:
    if error is None:
        waits.append(time.perf_counter() - since)


async def _bare(options: Options, exchange_name: str, waits: list[float]) -> None:
    async with await aio_pika.connect(options.amqp) as connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.get_exchange(exchange_name, ensure=False)
        numbers = iter(range(options.events))

        async def one_after_the_other() -> None:
            for number in numbers:
                since = time.perf_counter()
                message = aio_pika.Message(
                    BODY,
                    headers=_headers(number),
                    content_type="application/json",
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    type="market.tick",
                )
                await exchange.publish(message, "market.tick", mandatory=True)
                waits.append(time.perf_counter() - since)

        await _together([one_after_the_other() for _ in range(BARE_IN_FLIGHT)])


async def _together(work: list[Coroutine[Any, Any, None]]) -> None:
    await asyncio.gather(*work)


def _headers(number: int) -> dict[str, Any]:
    return {
        "x-event-id": f"01K7QZ3V8E{number:016d}",
        "x-event-type": "market.tick",
        "partition": number % 16,
    }
