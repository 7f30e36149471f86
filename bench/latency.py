"""From the stream to the handler: one bridge, one worker, quorum queues, in processes of their own.

A small stream server sends ticks at a steady rate, each with the time at which it was sent; the
handler, in the worker's process, looks at the clock. All on one machine, so it is one clock.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import uvloop
from websockets.asyncio.server import ServerConnection, serve

from bench.consume import laid_out
from fleet.core.events import Event, write_event
from fleet.core.ulid import make_ulid
from fleet.settings import inherited
from fleet.store import open_store
from topology.model import Lanes, QueueType
from workers.context import Context
from workers.registry import EffectClass, Service
from workers.settings import WorkerSettings
from workers.worker import Worker

PAIRS = [f"P{number}/USD" for number in range(16)]
WARM_UP = 500
DEADLINE_S = 300.0
KEY = "pf_live_bench"


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure."""

    amqp_url: str
    events: int = 20_000
    rate: int = 1_000
    effect: EffectClass = "idempotent"
    queue_type: QueueType = "quorum"


async def run(options: Options) -> dict[str, Any]:
    """Milliseconds from the socket of the stream to the handler, after a warm-up."""
    name = f"bench.b{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as folder:
        store_url = f"sqlite:///{folder}/bench.sqlite3"
        service = _service(name, options.effect, [])
        async with (
            laid_out(service, options.amqp_url, options.queue_type, store_url),
            _stream(options) as port,
        ):
            waits = await _measure(name, options, store_url, port)
    waits.sort()
    return {
        "events": len(waits),
        "rate": options.rate,
        "effect": options.effect,
        "queue_type": options.queue_type,
        "p50_ms": round(waits[len(waits) // 2] / 1e6, 2),
        "p99_ms": round(waits[len(waits) * 99 // 100] / 1e6, 2),
        "max_ms": round(waits[-1] / 1e6, 2),
    }


def _service(name: str, effect: EffectClass, waits: list[int]) -> Service:
    service = Service(name, lanes=Lanes())

    @service.handler("market.tick", effect=effect)
    def on_tick(_: Context, payload: dict[str, Any]) -> None:
        waits.append(time.time_ns() - payload["sent_ns"])

    return service


async def _measure(name: str, options: Options, store_url: str, port: int) -> list[int]:
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("spawn").Process(
        target=_work, args=(name, options, store_url, theirs)
    )
    worker.start()
    bridge = None
    try:
        await asyncio.to_thread(ours.recv)  # it consumes
        bridge = subprocess.Popen(  # noqa: ASYNC220 - our own command, and it returns at once
            [sys.executable, "-m", "fleet", "publisher"],
            env=inherited()
            | {
                "AMQP_URL": options.amqp_url,
                "STORE_URL": store_url,
                "PF_STREAM_URL": f"ws://127.0.0.1:{port}",
                "PF_AGENT_ID": "pf_agent_bench",
                "PF_AGENT_KEY": KEY,
            },
            stderr=subprocess.DEVNULL,
        )
        async with asyncio.timeout(DEADLINE_S):
            waits: list[int] = await asyncio.to_thread(ours.recv)
        return waits[WARM_UP:]
    finally:
        if bridge is not None:
            bridge.send_signal(signal.SIGTERM)
            bridge.wait()
        worker.join(10)
        worker.kill()


def _work(name: str, options: Options, store_url: str, pipe: Connection) -> None:
    """The worker's process: tells when it consumes, and all waits when it has them."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        pipe.send(runner.run(_handle(name, options, store_url, pipe)))


async def _handle(name: str, options: Options, store_url: str, pipe: Connection) -> list[int]:
    waits: list[int] = []
    store = open_store(store_url)
    await store.open()
    settings = WorkerSettings(amqp_url=options.amqp_url)
    worker = Worker(_service(name, options.effect, waits), settings, store)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    while len(worker.consuming) < len(PAIRS):
        await asyncio.sleep(0.01)
    pipe.send("consuming")
    while len(waits) < options.events + WARM_UP and not running.done():
        await asyncio.sleep(0.05)
    stop.set()
    await running
    await store.close()
    return waits


@asynccontextmanager
async def _stream(options: Options) -> AsyncIterator[int]:
    """A stream server that sends to whoever subscribes, at a steady rate; its port."""

    async def send(socket: ServerConnection) -> None:
        subscription = json.loads(await socket.recv())
        if subscription["resumeFrom"]:
            return
        began = time.perf_counter()
        for number in range(options.events + WARM_UP):
            ahead = began + number / options.rate - time.perf_counter()
            if ahead > 0:
                await asyncio.sleep(ahead)
            await socket.send(_tick(number).decode())
        await socket.wait_closed()

    async with serve(send, "127.0.0.1", 0) as server:
        yield next(iter(server.sockets)).getsockname()[1]


def _tick(number: int) -> bytes:
    now_ns = time.time_ns()
    payload = {
        "pair": PAIRS[number % len(PAIRS)],
        "price": 61837,
        "timestamp_ms": now_ns // 1_000_000,
        "sent_ns": now_ns,
    }
    event_id = make_ulid(now_ns // 1_000_000, os.urandom(10))
    return write_event(
        Event(event_id, "market.tick", "pf_agent_bench", payload, now_ns // 1_000_000)
    )
