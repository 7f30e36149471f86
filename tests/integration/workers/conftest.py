"""A service on a broker of its own virtual host, with workers in this process."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from fleet import clock
from fleet.amqp.admin import Admin
from fleet.core.events import Event, write_event
from fleet.core.ulid import make_ulid
from fleet.store import Store, bindings, open_store
from tests.waiting import until
from topology import names
from topology.apply import apply
from topology.plan import plan
from workers.registry import Service
from workers.settings import WorkerSettings
from workers.worker import Worker


class Bench:
    """One service on one virtual host: publish to it, run workers, look at what became of it."""

    until = staticmethod(until)

    def __init__(self, url: str, store_url: str) -> None:
        self.url = url
        self.store_url = store_url
        self.store: Store = open_store(self.store_url)
        self._connection: Any = None
        self._channel: Any = None
        self._running: dict[Worker, tuple[asyncio.Task[None], asyncio.Event]] = {}

    @staticmethod
    def event(kind: str, payload: dict[str, Any] | None = None, *, age_s: float = 0) -> Event:
        """A fresh event."""
        return make_event(kind, payload, age_s=age_s)

    async def settled(self, service: Service, events: Sequence[Event]) -> dict[str, str]:
        """Wait until each of these is journalled; their outcomes."""
        ids = {event.event_id for event in events}

        async def all_there() -> bool:
            return ids <= set(await self.journal(service.name))

        await until(all_there)
        rows = await self.journal(service.name)
        return {event_id: rows[event_id][0] for event_id in ids}

    async def open(self) -> None:
        """Open the store and a connection of the test's own."""
        await self.store.open()
        self._connection = await aio_pika.connect(self.url)
        self._channel = await self._connection.channel(on_return_raises=True)

    async def close(self) -> None:
        """Stop all workers and let go."""
        for worker in list(self._running):
            await self.stop(worker)
        await self._connection.close()
        await self.store.close()

    async def lay_out(self, service: Service) -> None:
        """Declare the service's topology and record what it bound."""
        async with await Admin.open(self.url) as admin:
            applied = await apply(plan([service.layout()]), admin)
        bound = applied.patterns[service.name]
        await self.store.run(lambda tx: bindings.record(tx, service.name, bound, 0))

    async def start(self, service: Service, **settings: Any) -> Worker:
        """A running worker of the service."""
        name = settings.pop("worker_name", f"worker-{uuid.uuid4().hex[:6]}")
        beside = {
            each: settings.pop(each) for each in ("middlewares", "settled") if each in settings
        }
        given = WorkerSettings(amqp_url=self.url, worker_name=name, **settings)
        worker = Worker(service, given, self.store, **beside)
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        self._running[worker] = (task, stop)
        await until(lambda: worker.consuming or task.done())
        if task.done():
            del self._running[worker]
            task.result()
        return worker

    async def stop(self, worker: Worker) -> None:
        """Drain it, as a stop request does."""
        task, stop = self._running.pop(worker)
        stop.set()
        await task

    async def publish(self, event: Event, headers: dict[str, Any] | None = None) -> None:
        """Publish an event as the bridge does."""
        fields: dict[str, Any] = {"x-event-id": event.event_id, "x-event-type": event.type}
        if event.type == "market.tick":
            fields["partition"] = names.partition(event.payload["pair"], 16)
        await self.send(names.INGEST, event.type, write_event(event), {**fields, **(headers or {})})

    async def send(self, exchange: str, key: str, body: bytes, headers: dict[str, Any]) -> None:
        """Publish any bytes, confirmed."""
        target = await self._channel.get_exchange(exchange, ensure=False)
        await target.publish(aio_pika.Message(body, headers=headers, delivery_mode=2), key)

    async def journal(self, service: str) -> dict[str, tuple[str, str]]:
        """Outcome and worker of each journalled event."""
        rows = await self.store.read(
            lambda tx: tx.query(
                "SELECT event_id, outcome, worker FROM journal WHERE service = ?", (service,)
            )
        )
        return {event_id: (outcome, worker) for event_id, outcome, worker in rows}

    async def depth(self, queue: str) -> int:
        """Messages ready in a queue."""
        channel = await self._connection.channel()
        declared = await channel.declare_queue(queue, passive=True)
        await channel.close()
        return int(declared.declaration_result.message_count or 0)

    async def holds(self, queue: str, least: int) -> bool:
        """Whether so many are ready in a queue: a quorum queue that is busy says 0 meanwhile."""
        return await self.depth(queue) >= least

    async def take(self, queue: str) -> AbstractIncomingMessage:
        """The next message of a queue, acked."""
        source = await self._channel.get_queue(queue, ensure=False)
        messages: list[AbstractIncomingMessage] = []

        async def comes() -> bool:
            messages.extend(filter(None, [await source.get(fail=False)]))
            return bool(messages)

        await until(comes)
        message = messages[0]
        await message.ack()
        return message


def make_event(
    event_type: str, payload: dict[str, Any] | None = None, *, age_s: float = 0
) -> Event:
    """A fresh event."""
    now_ms = clock.now_ms() - int(age_s * 1000)
    return Event(
        event_id=make_ulid(now_ms, os.urandom(10)),
        type=event_type,
        agent_id="pf_agent_test",
        payload=payload or {},
        ts=now_ms,
    )


@pytest.fixture
async def bench(amqp_url: str, store_url: str) -> AsyncGenerator[Bench, None]:
    """A bench on this test's own virtual host."""
    own = Bench(amqp_url, store_url)
    await own.open()
    yield own
    await own.close()


@pytest.fixture
def service() -> Service:
    """A service without handlers yet, under a name of its own."""
    return Service(f"test.s{uuid.uuid4().hex[:8]}")
