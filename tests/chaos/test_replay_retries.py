"""Delays: spread as the policy says, never early nor late, and through the death of the broker."""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import aio_pika
import structlog

from fleet import clock
from fleet.amqp.admin import Admin
from fleet.amqp.connection import Link
from fleet.amqp.looks import open_looks
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.envelope import LAST_FAILED_AT, event_headers, read_headers
from fleet.core.errors import NetworkError, PublishError
from fleet.core.events import Event, write_event
from fleet.core.retry import RetryPolicy
from fleet.core.ulid import make_ulid
from fleet.store import bindings, open_store
from fleet.store.audit import outcomes
from tests.waiting import until
from topology import names
from topology.apply import apply
from topology.plan import plan
from workers.context import Context
from workers.registry import Service
from workers.settings import WorkerSettings
from workers.worker import Worker

FLYING = 3_000
SPREAD = 1_000
POLICY = RetryPolicy(attempts=4, base=0.5, cap=2.0)
DEADLINE_S = 150
BEAT_S = 0.02
PACE_S = 0.003

log = structlog.get_logger()


class Failing:
    """A service whose handler fails as often as its policy allows but once, and a worker."""

    def __init__(self, url: str, folder: Path, name: str, policy: RetryPolicy) -> None:
        self.url = url
        self.kind = name
        self.service = Service(name)
        self.store = open_store(f"sqlite:///{folder}/{name}.sqlite3")

        @self.service.handler(self.kind, retry=policy)
        def fails(ctx: Context, _payload: dict[str, Any]) -> None:
            if ctx.attempt < policy.attempts:
                raise NetworkError("not yet")

    @property
    def work(self) -> str:
        """Its work queue."""
        return names.work_queue(self.service.name)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """A worker, on the service's layout, while this lasts."""
        layout = self.service.layout()
        async with await Admin.open(self.url) as admin:
            await apply(plan([layout]), admin)
        await self.store.open()
        await self.store.run(lambda tx: bindings.record(tx, layout.name, layout.fed, 0))
        settings = WorkerSettings(amqp_url=self.url, worker_name="worker")
        stop = asyncio.Event()
        work = asyncio.create_task(Worker(self.service, settings, self.store).run(stop))
        yield
        stop.set()
        await work
        await self.store.close()

    async def publish(self, count: int, every_s: float = 0.0) -> None:
        """So many events, confirmed."""
        refused: list[PublishError] = []
        async with publishing(self.url) as publisher:
            for _ in range(count):
                now_ms = clock.now_ms()
                event = Event(make_ulid(now_ms, os.urandom(10)), self.kind, "a", {}, now_ms)
                await publisher.room()
                publisher.post(
                    names.INGEST,
                    event.type,
                    write_event(event),
                    headers=event_headers(event),
                    settled=lambda error: error is None or refused.append(error),
                )
                if every_s:
                    await asyncio.sleep(every_s)
            await publisher.drain(DEADLINE_S)
        assert not refused

    async def delayed(self) -> int:
        """How many wait in a bucket."""
        async with open_looks(self.url) as looks:
            buckets = [names.retry(self.service.name, n) for n in range(names.BUCKETS)]
            return sum(depth.ready for depth in (await looks.depths(buckets)).values())

    async def done(self) -> int:
        """How many are journalled as done."""
        found = await self.store.read(lambda tx: outcomes(tx, self.service.name))
        return found.get("done", 0)


@asynccontextmanager
async def publishing(url: str) -> AsyncIterator[ConfirmedPublisher]:
    """A publisher."""
    async with Link(url, "test") as link, ConfirmedPublisher(link) as publisher:
        yield publisher


async def test_a_killed_broker_loses_no_retry(fresh_broker: Any, tmp_path: Path):
    """Kill -9 amid 3,000 retries, many of them delayed: each comes home and is done."""
    # So long that hundreds are delayed at once, and for a while, however slow the machine is.
    policy = RetryPolicy(attempts=2, base=20.0, cap=20.0)
    failing = Failing(fresh_broker.amqp_url, tmp_path, "test.flying", policy)
    async with failing.working():
        await failing.publish(FLYING)

        async def many_are_delayed() -> bool:
            return await failing.delayed() > FLYING // 6

        await until(many_are_delayed, DEADLINE_S)
        await asyncio.to_thread(fresh_broker.kill)
        began = time.monotonic()
        await asyncio.to_thread(fresh_broker.restart)

        async def all_done() -> bool:
            return await failing.done() == FLYING

        await until(all_done, DEADLINE_S)
        log.info("all came home", seconds=round(time.monotonic() - began, 1))


class Witness:
    """Stands where retries come home: measures each one, and then lets it go on to its worker.

    Retries of `prompt` have no delay.
    """

    def __init__(self, failing: Failing, prompt: Failing) -> None:
        self._services = (failing.work, prompt.work)
        self._prompt = prompt.work
        self._newest_s = 0.0
        self.delays_ms: dict[int, list[int]] = defaultdict(list)
        """What was drawn, by the attempt that had failed."""
        self.late_s: list[float] = []
        """How much later than its delay each came."""
        self.astray: list[tuple[str, int]] = []
        """Which bucket had which delay, where it is not the smallest that holds it."""
        self.overtaken_s: list[float] = []
        """By how much a prompt one that was before it failed after the longest delay of its bucket:
        what the machine is slow at, or stands still for, both wait for."""
        self._channel: Any = None

    @asynccontextmanager
    async def standing(self, url: str) -> AsyncIterator[None]:
        """Take the place of the work queues behind `pf.redeliver`, while this lasts."""
        async with await aio_pika.connect(url) as connection:
            self._channel = await connection.channel()
            redeliver = await self._channel.get_exchange(names.REDELIVER, ensure=False)
            own = await self._channel.declare_queue("witness", durable=True)
            for work in self._services:
                await own.bind(redeliver, work)
                home = await self._channel.get_queue(work, ensure=False)
                await home.unbind(redeliver, work)
            await own.consume(self._measure)
            yield

    async def _measure(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        now_s, headers = time.time(), cast("dict[str, Any]", dict(message.headers))
        work = str(message.routing_key)
        (death, *_) = headers.pop("x-death")  # the bucket's entry
        delay_ms = int(death["original-expiration"])
        failed_s = datetime.fromisoformat(headers[LAST_FAILED_AT]).timestamp()
        number = names.bucket(delay_ms)
        if not death["queue"].endswith(f".retry.{number:02}"):
            self.astray.append((death["queue"], delay_ms))
        if work == self._prompt:
            self._newest_s = max(self._newest_s, failed_s)
        else:
            self.delays_ms[read_headers(headers).attempt - 1].append(delay_ms)
            self.late_s.append(now_s - failed_s - delay_ms / 1000)
            self.overtaken_s.append(self._newest_s - failed_s - names.bucket_ms(number) / 1000)
        on = aio_pika.Message(message.body, headers=headers, delivery_mode=2)
        await self._channel.default_exchange.publish(on, work)
        await message.ack()


async def test_retries_are_spread_as_the_policy_says(amqp_url: str, tmp_path: Path):
    """3,000 retries: uniform up to each attempt's ceiling, none early, none beyond its bucket.

    How slow the machine is at the time, retries without a delay say: they take the same road, and
    those that failed later are not home before.
    """
    failing = Failing(amqp_url, tmp_path, "test.failing", POLICY)
    prompt = Failing(amqp_url, tmp_path, "test.prompt", RetryPolicy(attempts=4, cap=0.0))
    witness = Witness(failing, prompt)
    async with failing.working(), prompt.working(), witness.standing(amqp_url):
        meter = asyncio.create_task(prompt.publish(10_000, BEAT_S))
        await failing.publish(SPREAD, PACE_S)

        async def all_done() -> bool:
            assert not meter.done(), meter.result()
            return await failing.done() == SPREAD

        await until(all_done, DEADLINE_S)
        meter.cancel()
        await asyncio.gather(meter, return_exceptions=True)
    assert {attempt: len(drawn) for attempt, drawn in witness.delays_ms.items()} == dict.fromkeys(
        (1, 2, 3), SPREAD
    )
    for attempt, drawn in witness.delays_ms.items():
        check_uniform(drawn, POLICY.ceiling(attempt) * 1000)
    assert min(witness.late_s) > -0.002
    assert witness.astray == []
    # The whole width of the largest of these buckets is two seconds: what waits for others longer
    # than that shows. A worker that stands still before it publishes a retry counts in the last.
    for share, margin_s in ((0.5, 0.25), (1.0, 20.0)):
        overtaken_s = at(share, witness.overtaken_s)
        log.info("overtaken", share=share, seconds=round(overtaken_s, 3))
        assert overtaken_s < margin_s


def at(share: float, values: Sequence[float]) -> float:
    """The value that this share of all do not exceed."""
    return sorted(values)[round(share * (len(values) - 1))]


def check_uniform(drawn_ms: Sequence[int], ceiling_ms: float) -> None:
    """The Kolmogorov-Smirnov distance to full jitter; by chance it is larger once in 10^6 runs."""
    ordered, count = sorted(drawn_ms), len(drawn_ms)
    assert ordered[0] > 0
    assert ordered[-1] <= ceiling_ms
    distance = max(abs((n + 1) / count - each / ceiling_ms) for n, each in enumerate(ordered))
    assert distance < 2.7 / count**0.5
