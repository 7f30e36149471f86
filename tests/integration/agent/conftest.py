"""The agent on a real broker, at a real stand-in, with three workers in this process."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from agent.handlers import service
from agent.settings import AgentSettings
from agent.world.settings import WorldSettings
from fleet import clock
from fleet.amqp.admin import Admin
from fleet.core.events import Event, write_event
from fleet.core.ulid import make_ulid
from fleet.store import bindings, open_store, positions
from sandbox.server import Sandbox
from sandbox.settings import SandboxSettings
from tests.waiting import until
from topology import names
from topology.apply import apply
from topology.plan import plan
from workers.settings import WorkerSettings
from workers.worker import Worker

AGENT = "pf_agent_sandbox"
PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT")


class Fleet:
    """Workers of the agent over one store and one virtual host, and what tests ask of them."""

    until = staticmethod(until)

    def __init__(self, amqp_url: str, store_url: str, folder: Path) -> None:
        self.store_url = store_url
        self.store = open_store(store_url)
        self.published: list[Event] = []
        self.sandbox: Any = None
        self._url = amqp_url
        self._folder = folder
        self._stack = AsyncExitStack()
        self._exchange: Any = None
        self._made: Any = None
        self._workers: list[Worker] = []
        self._running: list[tuple[asyncio.Task[None], asyncio.Event]] = []

    async def start(
        self, *, workers: int = 3, world: WorldSettings | None = None, **venue: Any
    ) -> None:
        """Start the venue, lay out the topology, start the workers."""
        await self.store.open()
        self._stack.push_async_callback(self.store.close)
        self.sandbox = await self._stack.enter_async_context(Sandbox(self._venue(**venue)))
        await self.sandbox._playing
        made = service(
            AgentSettings(
                api_url=self.sandbox.url, agent_id=AGENT, agent_key="pf_live_sandbox", partitions=4
            ),
            world,
        )
        self._made = made
        async with await Admin.open(self._url) as admin:
            bound = (await apply(plan([made.layout()]), admin)).patterns[made.name]
        await self.store.run(lambda tx: bindings.record(tx, made.name, bound, 0))
        connection = await aio_pika.connect(self._url)
        self._stack.push_async_callback(connection.close)
        channel = await connection.channel(on_return_raises=True)
        self._exchange = await channel.get_exchange(names.INGEST, ensure=False)
        for number in range(workers):
            await self._start_worker(made, f"w{number}-{uuid.uuid4().hex[:4]}")

    async def _start_worker(self, made: Any, name: str) -> None:
        settings = WorkerSettings(amqp_url=self._url, worker_name=name)
        worker, stop = Worker(made, settings, self.store), asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        self._running.append((task, stop))
        self._workers.append(worker)
        await self.until(lambda: worker.consuming or task.done())

    def _venue(self, **given: Any) -> SandboxSettings:
        path = self._folder / "tape.csv"
        lines = [f"{1_700_000_000_000 + n},{pair},1000,1" for n, pair in enumerate(PAIRS)]
        path.write_text("\n".join(["ts_ms,pair,price,qty", *lines]) + "\n")
        return SandboxSettings(port=0, speed="max", script_every=0, trades=path, **given)

    async def stop(self) -> None:
        """Drain the workers and close everything."""
        for task, stop in self._running:
            stop.set()
            await task
        await self._stack.aclose()

    def modes(self) -> set[str]:
        """The modes that the replicas are in now."""
        return {worker._flow.pool.app.watch.standing.mode for worker in self._workers}

    async def replace_worker(self, name: str) -> None:
        """Drain the workers that run, and start one in their place."""
        for task, stop in self._running:
            stop.set()
            await task
        self._running.clear()
        await self._start_worker(self._made, name)

    async def tick(self, pair: str, price: int, at: int) -> None:
        """Publish one tick as the bridge does."""
        ts = clock.now_ms()
        payload = {"pair": pair, "price": Decimal(price), "timestamp_ms": at}
        event = Event(make_ulid(ts, os.urandom(10)), "market.tick", AGENT, payload, ts)
        headers = {
            "x-event-id": event.event_id,
            "x-event-type": event.type,
            "partition": names.partition(pair, 4),
        }
        message = aio_pika.Message(write_event(event), headers=headers, delivery_mode=2)
        await self._exchange.publish(message, event.type)
        self.published.append(event)

    async def tell(self, kind: str, payload: dict[str, Any]) -> Event:
        """Publish another event as the bridge does."""
        ts = clock.now_ms()
        event = Event(make_ulid(ts, os.urandom(10)), kind, AGENT, payload, ts)
        message = aio_pika.Message(
            write_event(event), headers={"x-event-id": event.event_id}, delivery_mode=2
        )
        await self._exchange.publish(message, kind)
        return event

    async def journal(self) -> list[tuple[str, str, str]]:
        """Event id, handler and outcome of every row."""
        return await self.store.read(
            lambda tx: tx.query("SELECT event_id, handler, outcome FROM journal")
        )

    async def settled(self, orders: int) -> dict[str, list[str]]:
        """Wait until every tick and so many orders are journalled; outcomes by handler."""
        found: dict[str, list[str]] = {}

        async def all_there() -> bool:
            found.clear()
            for _, handler, outcome in await self.journal():
                found.setdefault(handler, []).append(outcome)
            ticks = len(found.get("on_tick", ()))
            return ticks == len(self.published) and len(found.get("on_order", ())) == orders

        await self.until(all_there)
        return found

    async def book(self) -> dict[str, str]:
        """Direction of what the book calls open."""
        held = await self.store.read(lambda tx: positions.open_positions(tx, AGENT))
        return {one.pair: one.direction for one in held if one.state == "open"}

    def venue(self) -> dict[str, str]:
        """Direction of what is open at the venue; a pair twice is a failure."""
        listed = self.sandbox._venue.positions()
        assert len({one["pair"] for one in listed}) == len(listed)
        return {one["pair"]: one["direction"] for one in listed}


@pytest.fixture
def pairs() -> tuple[str, ...]:
    """The venue's markets."""
    return PAIRS


@pytest.fixture
async def agents(
    amqp_url: str, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Fleet]:
    """A fleet of the agent on this test's own virtual host."""
    for name in [name for name in os.environ if name.startswith(("PF_", "SANDBOX_"))]:
        monkeypatch.delenv(name)
    made = Fleet(amqp_url, store_url, tmp_path)
    yield made
    await made.stop()
