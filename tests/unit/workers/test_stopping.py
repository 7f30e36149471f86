"""A stop request while a worker is still beginning."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from fleet.core.errors import StateError
from fleet.store import Store, Tx, bindings, open_store, replicas
from fleet.store.watched import Watched
from workers.context import Context
from workers.registry import Service
from workers.settings import WorkerSettings
from workers.worker import Worker

T = TypeVar("T")


class Full(Watched):
    """A store that can be read, and takes no more once `full`."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.full = False
        self.asked = asyncio.Event()

    async def run(self, work: Callable[[Tx], T]) -> T:
        """Do it, or raise StateError."""
        self.asked.set()
        if self.full:
            raise StateError("The disk of the store is full.")
        return await super().run(work)


async def stopped(store: Full, until: Callable[[], bool]) -> None:
    """Begin a worker whose broker is not there, and stop it when `until` is true."""
    service = Service("svc")

    @service.handler("order.requested")
    def on_order(_: Context, __: dict[str, str]) -> None:
        """Be done."""

    settings = WorkerSettings(worker_name="w1", amqp_url="amqp://127.0.0.1:1/")
    stop = asyncio.Event()
    running = asyncio.create_task(Worker(service, settings, store).run(stop))
    async with asyncio.timeout(60):
        while not until():
            await asyncio.sleep(0.01)
        stop.set()
        await running


async def test_a_worker_that_waits_for_its_store_can_be_stopped(store_url: str):
    """However long the store is away, Ctrl-C and SIGTERM are obeyed, without an error."""
    store = Full(open_store(store_url))
    await store.open()
    await store.run(lambda tx: bindings.record(tx, "svc", ["order.requested"], 1))
    store.full = True
    store.asked.clear()
    await stopped(store, store.asked.is_set)
    await store.close()


async def test_a_worker_that_waits_for_its_broker_leaves_nothing_behind(store_url: str):
    """Its name is free again: the next one under it need not wait until this one is silent."""
    store = Full(open_store(store_url))
    await store.open()
    await store.run(lambda tx: bindings.record(tx, "svc", ["order.requested"], 1))
    names: list[str] = []

    async def look() -> None:
        while not names:
            names.extend(each.name for each in await store.read(replicas.every))
            await asyncio.sleep(0.01)

    looking = asyncio.create_task(look())
    await stopped(store, lambda: bool(names))
    await looking
    assert names == ["w1"]
    assert await store.read(replicas.every) == []
    await store.close()
