"""A broker with a layout, a stand-in platform, a store, and bridges between them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiormq import Connection
from aiormq.exceptions import ChannelNotFoundEntity

from fleet.amqp.admin import Admin
from fleet.amqp.connection import Link
from fleet.amqp.exchanges import require
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.store import audit, bridge, cursors
from fleet.store.api import Tx
from fleet.store.factory import open_store
from publisher.bridge import Bridge
from publisher.lease import Leadership
from publisher.settings import Limits
from publisher.sources.stream import StreamSource
from sandbox.server import Sandbox
from sandbox.settings import DEMO_KEY, load
from tests.waiting import until
from topology import names
from topology.apply import apply
from topology.model import Lanes, ServiceLayout
from topology.model import Limits as QueueLimits
from topology.plan import plan

DEADLINE_S = 120
AGENT = "pf_agent_sandbox"
SOURCE = f"stream:{AGENT}"
PATTERNS = ("market.tick", "market.candle", "wallet.*", "escrow.*", "job.*", "a.*")


class World:
    """One test's broker, store and platform, and the questions it asks them."""

    until = staticmethod(until)

    def __init__(self, amqp_url: str, store_url: str, folder: Path) -> None:
        self.amqp_url = amqp_url
        self.store_url = store_url
        self.stream_url = "ws://127.0.0.1:1/"
        self._folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    async def lay_out(self, **limits: int) -> None:
        """Apply the layout of one service with lanes."""
        service = ServiceLayout(
            "test", PATTERNS, lanes=Lanes(), limits=QueueLimits(**limits), buckets=1
        )
        async with await Admin.open(self.amqp_url) as admin:
            await apply(plan([service]), admin)

    @asynccontextmanager
    async def platform(self, **settings: Any) -> AsyncGenerator[Sandbox, None]:
        """A stand-in Purple Flea that begins when the first bridge subscribes."""
        given = {"port": 0, "speed": "max", "wait": True, "script_every": 20, **settings}
        async with Sandbox(load(**given)) as sandbox:
            self.stream_url = sandbox.url.replace("http", "ws", 1) + "/api/stream"
            yield sandbox

    @asynccontextmanager
    async def bridge(
        self, holder: str = "one", ttl_s: float = 30, **beside: Any
    ) -> AsyncGenerator[Bridge, None]:
        """A bridge in this process, stopped in the end as by SIGTERM."""
        source = StreamSource(self.stream_url, DEMO_KEY, AGENT, first_delay_s=0.05, max_delay_s=0.5)
        async with AsyncExitStack() as stack:
            store = open_store(self.store_url)
            await store.open()
            stack.push_async_callback(store.close)
            link = Link(self.amqp_url, holder, on_connect=require([names.INGEST]))
            await stack.enter_async_context(link)
            publisher = await stack.enter_async_context(ConfirmedPublisher(link))
            leadership = Leadership(store, f"bridge:{AGENT}", holder, ttl_s=ttl_s)
            it = Bridge(source, publisher, store, leadership, Limits(), **beside)
            running = asyncio.create_task(it.run())
            try:
                yield it
            finally:
                it.stop()
                await asyncio.wait_for(running, DEADLINE_S)

    def environment(self) -> dict[str, str]:
        """What a bridge process is told."""
        return {
            **os.environ,
            "AMQP_URL": self.amqp_url,
            "STORE_URL": self.store_url,
            "PF_STREAM_URL": self.stream_url,
            "PF_AGENT_ID": AGENT,
            "PF_AGENT_KEY": DEMO_KEY,
            "PF_LEASE_TTL_S": "1.5",
        }

    async def leader(self) -> subprocess.Popen[bytes]:
        """Which of the processes leads, once one does."""
        pids = {str(process.pid): process for process in self.processes}
        found: list[subprocess.Popen[bytes]] = []

        async def leads() -> bool:
            rows = await self.look(lambda tx: tx.query("SELECT holder FROM leases"))
            holders = [holder.split(":") for (holder,) in rows]
            found[:] = [pids[words[1]] for words in holders if len(words) > 1 and words[1] in pids]
            return bool(found)

        await self.until(leads)
        return found[0]

    def start_process(self) -> subprocess.Popen[bytes]:
        """`fleet publisher` as an operator starts it."""
        with self._log(len(self.processes)).open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "fleet", "publisher"], env=self.environment(), stderr=file
            )
        self.processes.append(process)
        return process

    async def stop_process(self, process: subprocess.Popen[bytes]) -> str:
        """Ask it to stop, as an operator does; what it told on stderr in its life."""
        process.terminate()
        await asyncio.to_thread(process.wait, DEADLINE_S)
        return self.told(process)

    def told(self, process: subprocess.Popen[bytes]) -> str:
        """What it has told on stderr so far."""
        return self._log(self.processes.index(process)).read_text()

    async def until_told(self, process: subprocess.Popen[bytes], words: str) -> None:
        """Wait until it says so."""

        async def said() -> bool:
            return words in self.told(process)

        await self.until(said)

    def _log(self, number: int) -> Path:
        return self._folder / f"bridge-{number}.log"

    async def look(self, query: Callable[[Tx], Any]) -> Any:
        """What the store says."""
        store = open_store(self.store_url)
        await store.open()
        try:
            return await store.read(query)
        finally:
            await store.close()

    async def write(self, work: Callable[[Tx], Any]) -> None:
        """Do this to the store."""
        store = open_store(self.store_url)
        await store.open()
        try:
            await store.run(work)
        finally:
            await store.close()

    async def cursor(self) -> str:
        """The saved cursor."""
        return str(await self.look(lambda tx: cursors.get(tx, SOURCE)))

    async def counts(self) -> dict[str, int]:
        """The saved counters."""
        found: dict[str, int] = await self.look(lambda tx: bridge.counts(tx, SOURCE))
        return found

    async def shed_ids(self) -> set[str]:
        """The ids of what was shed."""
        return {row.event_id for row in await self.look(lambda tx: audit.page(tx, "bridge"))}

    async def until_saved(self, cursor: str = "") -> None:
        """Wait until the cursor has come to this event, or to any."""

        async def saved() -> bool:
            found = await self.cursor()
            return found == cursor if cursor else bool(found)

        await self.until(saved)

    async def logged(self) -> list[str]:
        """The ids in the log, in its order, twins and all."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    return await self._read_log()
                except ChannelNotFoundEntity:  # after a crash a stream is there later than the rest
                    await asyncio.sleep(0.2)

    async def _read_log(self) -> list[str]:
        found: list[str] = []
        marker = "the end of this look"
        async with Connection(self.amqp_url) as connection:
            channel = await connection.channel()
            seen = asyncio.Event()

            async def take(message: Any) -> None:
                await channel.basic_ack(message.delivery_tag)
                headers = message.header.properties.headers
                if headers.get("marker") == marker:
                    seen.set()
                elif not seen.is_set() and "x-event-id" in headers:
                    found.append(headers["x-event-id"])

            async with Link(self.amqp_url, "look") as link, ConfirmedPublisher(link) as it:
                await it.publish(names.INGEST, "marker", b"", headers={"marker": marker})
            await channel.basic_qos(prefetch_count=500)
            arguments = {"x-stream-offset": "first"}
            await channel.basic_consume(names.LOG, take, arguments=arguments)
            await seen.wait()
        return found

    async def drain(self, queue: str) -> list[Any]:
        """All the messages of a queue."""
        found = []
        async with Connection(self.amqp_url) as connection:
            channel = await connection.channel()
            while (message := await channel.basic_get(queue, no_ack=True)).delivery_tag:
                found.append(message)
        return found

    async def take(self, queues: Sequence[str], enough: Callable[[set[str]], bool]) -> set[str]:
        """The ids of events that these queues deliver, until they are enough."""
        found: set[str] = set()
        changed = asyncio.Event()

        async def take(message: Any) -> None:
            found.add(message.header.properties.headers["x-event-id"])
            changed.set()

        async with Connection(self.amqp_url) as connection, asyncio.timeout(DEADLINE_S):
            channel = await connection.channel()
            for queue in queues:
                await channel.basic_consume(queue, take)
            while not enough(found):
                changed.clear()
                await changed.wait()
        return found


def ids(sandbox: Sandbox) -> list[str]:
    """Every id that the platform emitted: the independent witness."""
    return [event["id"] for event in events(sandbox)]


def events(sandbox: Sandbox) -> list[dict[str, Any]]:
    """Every event that the platform emitted: id, type and ts."""
    lines = b"".join(sandbox.ledger.event_lines()).splitlines()
    return [json.loads(line) for line in lines]


class Sluice:
    """Lets a platform that plays at full speed tell so many events and no more, for now."""

    def __init__(self, sandbox: Sandbox, most: int) -> None:
        self.most = most
        self._sandbox = sandbox
        self._room = sandbox._stream.room
        sandbox._stream.room = self._wait  # type: ignore[method-assign]  # a gate before it

    async def _wait(self, limit: int) -> None:
        await self._room(limit)
        while self._sandbox.ledger.summary()["emitted"] >= self.most:
            await asyncio.sleep(0.01)


async def until_emitted(sandbox: Sandbox) -> None:
    """Wait until the feed has come to its end."""
    async with asyncio.timeout(DEADLINE_S):
        while sandbox.summary()["feed"] != "ended":
            await asyncio.sleep(0.05)


@pytest.fixture
def witness() -> Callable[[Sandbox], list[str]]:
    """The ids that a platform emitted."""
    return ids


@pytest.fixture
def emitted() -> Callable[[Sandbox], list[dict[str, Any]]]:
    """The events that a platform emitted."""
    return events


@pytest.fixture
def sluice() -> Callable[[Sandbox, int], Sluice]:
    """Holds a platform's feed back."""
    return Sluice


@pytest.fixture
def feed_over() -> Callable[[Sandbox], Any]:
    """Waits until a platform's feed has come to its end."""
    return until_emitted


@pytest.fixture
def world(amqp_url: str, store_url: str, tmp_path: Path) -> Iterator[World]:
    """A world on this test's virtual host; its processes end with it."""
    it = World(amqp_url, store_url, tmp_path)
    yield it
    end(it)


@pytest.fixture
def fresh_world(fresh_broker: Any, store_url: str, tmp_path: Path) -> Iterator[World]:
    """A world whose broker may be killed."""
    it = World(fresh_broker.amqp_url, store_url, tmp_path)
    yield it
    end(it)


def end(world: World) -> None:
    """End the processes that a test has left."""
    for process in world.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
