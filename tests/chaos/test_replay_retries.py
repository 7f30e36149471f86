"""Delays: spread as the policy says, never early, and through the death of the broker."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fleet.amqp.admin import Admin
from fleet.amqp.connection import Link
from fleet.amqp.harvest import open_harvest
from fleet.amqp.looks import open_looks
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.envelope import event_headers
from fleet.core.errors import BrokerError, NetworkError, PublishError
from fleet.core.events import Event, write_event
from fleet.core.retry import RetryPolicy
from fleet.core.ulid import make_ulid
from fleet.store import bindings, open_store
from topology import names
from topology.apply import apply
from topology.model import ServiceLayout
from topology.plan import plan
from workers.context import Context
from workers.registry import Service
from workers.settings import WorkerSettings
from workers.worker import Worker

COUNT = 3000
DEADLINE_S = 90
SLACK_S = 10.0
"""How far behind a busy machine may be; the claim is the bucket's width."""


@asynccontextmanager
async def publishing(url: str) -> AsyncIterator[ConfirmedPublisher]:
    """A publisher that is ready."""
    async with Link(url, "test") as link, ConfirmedPublisher(link) as publisher:
        await publisher.room()
        yield publisher


async def lay_out(url: str, layout: ServiceLayout) -> Any:
    """Declare a service."""
    async with await Admin.open(url) as admin:
        return await apply(plan([layout]), admin)


async def depth(url: str, queue: str) -> int:
    """How many wait; -1 while the broker is not to be had."""
    try:
        async with open_looks(url) as looks:
            return (await looks.depths([queue]))[queue].ready
    except (BrokerError, KeyError):
        return -1


async def test_a_killed_broker_loses_no_retry(fresh_broker: Any):
    """Kill -9 with 3,000 delayed messages in flight: all of them come home, in seconds."""
    url, layout = fresh_broker.amqp_url, ServiceLayout("test.retries", ("test.*",))
    await lay_out(url, layout)
    confirmed: set[str] = set()

    async def delay(publisher: ConfirmedPublisher, number: int) -> None:
        name, delay_ms = str(number), random.randint(1, 8_000)  # noqa: S311 - jitter
        bucket = names.bucket(delay_ms)
        key = names.retry(layout.name, bucket)
        headers = {"x-number": name}
        try:
            await publisher.publish(
                names.REDELIVER, key, b"{}", headers=headers, expiration_ms=delay_ms
            )
        except PublishError:
            return
        confirmed.add(name)

    async with publishing(url) as publisher:
        await asyncio.gather(*(delay(publisher, number) for number in range(COUNT)))
    assert len(confirmed) == COUNT
    work = names.work_queue(layout.name)
    assert await depth(url, work) < COUNT
    await asyncio.to_thread(fresh_broker.kill)
    await asyncio.to_thread(fresh_broker.restart)
    async with asyncio.timeout(DEADLINE_S):
        while await depth(url, work) < COUNT:
            await asyncio.sleep(0.2)
    back: set[str] = set()
    async with open_harvest(url, work) as harvest:
        await harvest.gather(lambda held: back.add(held.headers["x-number"]) is None)
    assert back == confirmed


async def test_retries_are_spread_and_never_early(
    amqp_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """2,000 failures: delays uniform over 0 to the cap, none early, none later than its bucket."""
    service = Service("test.jitter")
    failed: dict[str, float] = {}
    again: dict[str, float] = {}
    drawn: list[int] = []
    real = names.bucket

    def bucket(delay_ms: int, buckets: int = names.BUCKETS) -> int:
        drawn.append(delay_ms)
        return real(delay_ms, buckets)

    @service.handler("test.fails", retry=RetryPolicy(attempts=2, base=2.0, cap=2.0))
    def fails(ctx: Context, _payload: dict[str, Any]) -> None:
        if ctx.attempt == 1:
            failed[ctx.event.event_id] = time.monotonic()
            raise NetworkError("not yet")
        again[ctx.event.event_id] = time.monotonic()

    monkeypatch.setattr("workers.roads.names.bucket", bucket)
    store = open_store(f"sqlite:///{tmp_path}/fleet.sqlite3")
    await store.open()
    layout = service.layout()
    await lay_out(amqp_url, layout)
    await store.run(lambda tx: bindings.record(tx, service.name, layout.fed, 0))
    settings = WorkerSettings(amqp_url=amqp_url, worker_name="worker")
    stop = asyncio.Event()
    work = asyncio.create_task(Worker(service, settings, store).run(stop))
    count = 2000
    async with publishing(amqp_url) as publisher:
        for _ in range(count):
            now_ms = time.time_ns() // 1_000_000
            event = Event(make_ulid(now_ms, os.urandom(10)), "test.fails", "a", {}, now_ms)
            await publisher.room()
            publisher.post(
                names.INGEST,
                event.type,
                write_event(event),
                headers=event_headers(event),
                settled=lambda _: None,
            )
        await publisher.drain(30)
    async with asyncio.timeout(DEADLINE_S):
        while len(again) < count:
            assert not work.done(), work.result()
            await asyncio.sleep(0.05)
    stop.set()
    await work
    await store.close()
    _check_uniform(drawn, 2000)
    waits = sorted(again[name] - failed[name] for name in again)
    # The n-th shortest wait is at least the n-th shortest delay: nobody came early.
    assert all(
        wait >= delay / 1000 - 0.002 for wait, delay in zip(waits, sorted(drawn), strict=True)
    )
    assert waits[-1] < 2 + names.bucket_ms(real(2000)) / 1000 + SLACK_S


def _check_uniform(drawn: list[int], ceiling: int) -> None:
    """The Kolmogorov-Smirnov distance to full jitter; by chance it is larger once in 10^6 runs."""
    ordered = sorted(drawn)
    count = len(ordered)
    assert ordered[0] > 0
    assert ordered[-1] <= ceiling
    distance = max(abs((n + 1) / count - each / ceiling) for n, each in enumerate(ordered))
    assert distance < 2.7 / count**0.5
