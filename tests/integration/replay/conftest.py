"""A service with messages in its failed queue, and everything that acts on them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from fleet import clock
from fleet.amqp.admin import Admin
from fleet.amqp.harvest import Held, open_harvest
from fleet.amqp.looks import open_looks
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.cli.load import load_service
from fleet.core.envelope import event_headers, failure_headers
from fleet.core.events import Event, write_event
from fleet.core.failure import failure
from fleet.core.ulid import make_ulid
from fleet.store import Store, bindings, open_store
from replay.entry import Entry
from replay.place import Place
from replay.plan import Plan
from replay.planning import make_plan
from replay.report import Report
from replay.run import Runner
from replay.selection import Selection
from replay.sending import open_publisher
from replay.verdict import Judge
from tests.waiting import until
from topology import names
from topology.apply import apply
from topology.model import Queue
from topology.plan import plan
from workers.registry import Service
from workers.settings import WorkerSettings
from workers.worker import Worker

HANDLERS = """
import pathlib

from fleet.core.errors import DataError
from topology.model import Lanes, Limits
from workers.registry import Service

HERE = pathlib.Path(__file__).parent
service = Service("test.replay", lanes=Lanes(partitions=2))
sibling = Service("test.sibling")
small = Service("test.small", limits=Limits(max_length=10))


def do(name):
    if (HERE / "broken").exists():
        raise DataError("broken for a while")
    with (HERE / "world").open("a") as world:
        world.write(name + "\\n")


@service.handler("wallet.*")
def on_wallet(ctx, payload):
    do(ctx.event.event_id)


@service.handler("market.tick", max_age=60)
def on_tick(ctx, payload):
    do(ctx.event.event_id)


def asked(ctx, payload):
    return None


@service.handler("job.*", stale_after=60)
def on_job(ctx, payload):
    do(ctx.event.event_id)


@service.handler("price.*", effect="pure")
def on_price(ctx, payload):
    do(ctx.event.event_id)


@service.handler(
    "order.requested", effect="once", key=lambda p: p["key"], unknown=asked, stale_after=1200
)
async def on_order(ctx, payload):
    if payload["size_usdc"] > 50:
        raise DataError("too large")
    do(payload["key"])


@small.handler("wallet.*")
@sibling.handler("wallet.*")
def beside(ctx, payload):
    with (HERE / "sibling").open("a") as world:
        world.write(ctx.event.event_id + "\\n")
"""


class Shop:
    """The service on a virtual host of its own; what is done by it, and by hand."""

    def __init__(self, url: str, store_url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.module = f"mine_{uuid.uuid4().hex[:8]}"
        (folder / f"{self.module}.py").write_text(textwrap.dedent(HANDLERS))
        self.store_url = store_url
        self.store: Store = open_store(self.store_url)
        self.become("service")

    def become(self, name: str) -> None:
        """Be about this service of the module."""
        self.service = self.load(name)
        self.queue = names.failed(self.service.name)
        self.work = names.work_queue(self.service.name)

    def load(self, name: str) -> Service:
        """A service of the module."""
        sys.path.insert(0, str(self.folder))
        try:
            found = load_service(f"{self.module}:{name}")
        finally:
            sys.path.remove(str(self.folder))
        assert isinstance(found, Service)
        return found

    async def open(self) -> None:
        """Open the store and lay both services out."""
        await self.store.open()
        await self.apply()

    async def apply(self) -> None:
        """Declare what both services ask for now."""
        others = (self.load(name) for name in ("sibling", "small"))
        layouts = [each.layout() for each in (self.service, *others)]
        async with await Admin.open(self.url) as admin:
            applied = await apply(plan(layouts), admin)
        for name, bound in applied.patterns.items():
            await self.store.run(
                lambda tx, name=name, bound=bound: bindings.record(tx, name, bound, 0)
            )

    def place(self, queue: str = "", operator: str = "ada") -> Place:
        """The failed queue, or another one."""
        return Place(self.url, self.store, self.service, queue or self.queue, operator)

    @staticmethod
    def event(kind: str, payload: dict[str, Any] | None = None, *, age_s: float = 0) -> Event:
        """A fresh event."""
        now_ms = clock.now_ms() - int(age_s * 1000)
        event_id = make_ulid(now_ms, os.urandom(10))
        return Event(event_id, kind, "pf_agent_test", payload or {}, now_ms)

    async def park(
        self, events: Sequence[Event | bytes], *, home: str = "", kind: str = "DataError"
    ) -> list[str]:
        """Park these as a worker does; their ids."""
        async with self.publisher() as publisher:
            sent = [self._park(publisher, event, home or self.work, kind) for event in events]
            await asyncio.gather(*sent)
        return [event.event_id for event in events if isinstance(event, Event)]

    async def _park(
        self, publisher: ConfirmedPublisher, event: Event | bytes, home: str, kind: str
    ) -> None:
        body = event if isinstance(event, bytes) else write_event(event)
        headers = failure_headers(
            {} if isinstance(event, bytes) else event_headers(event),
            failure("data", kind, "broken"),
            attempt=1,
            now_ms=clock.now_ms(),
            queue=home,
            worker="worker-1",
            handler="on_wallet",
        )
        # Ten thousand may stand in line.
        await publisher.publish(names.DLX, self.queue, body, headers=headers, lane=0, timeout_s=120)

    @asynccontextmanager
    async def publisher(self) -> AsyncIterator[ConfirmedPublisher]:
        """A publisher."""
        async with open_publisher(self.url) as publisher:
            yield publisher

    async def plan(self, queue: str = "", *, stale: bool = False, **selected: Any) -> Plan:
        """What a run would do."""
        judge = Judge(self.service, even_if_stale=stale)
        return await make_plan(self.place(queue), judge, Selection(**selected))

    async def run(self, made: Plan, **more: Any) -> Report:
        """Run it."""
        judge = Judge(self.service, even_if_stale=made.even_if_stale)
        async with open_publisher(self.url) as publisher:
            runner = Runner(self.place(made.queue), judge, publisher, **more)
            await runner.run(made.sent)
        return runner.report

    async def entries(self, queue: str = "") -> list[Entry]:
        """What waits."""
        found: list[Entry] = []

        def seen(entry: Entry, _held: Held) -> bool:
            found.append(entry)
            return True

        await self.place(queue).look(seen)
        return found

    async def take_all(self, queue: str) -> list[Held]:
        """Everything in a queue, taken out of it."""
        found: list[Held] = []
        async with open_harvest(self.url, queue) as harvest:
            await harvest.gather(lambda held: found.append(held) or True)
            for held in found:
                harvest.ack(held)
            await harvest.flush()
        return found

    async def dead_letter(self, reason: str) -> None:
        """Let the broker park what is in the work queue."""
        connection = await aio_pika.connect(self.url)
        async with connection, connection.channel() as channel:
            source = await channel.get_queue(self.work, ensure=False)
            if reason == "rejected":
                message = await source.get()
                await message.reject(requeue=False)
                return
            held = await source.get()
            await held.ack()
            # In the place of the planned queue, which lets a message wait for a day.
            await source.delete(if_unused=False, if_empty=False)
            (planned,) = (queue for queue in self._queues() if queue.name == self.work)
            arguments = {**planned.arguments, "x-message-ttl": 1}
            short = await channel.declare_queue(self.work, durable=True, arguments=arguments)
            redeliver = await channel.get_exchange(names.REDELIVER, ensure=False)
            await short.bind(redeliver, self.work)
            again = aio_pika.Message(held.body, expiration=0.01, delivery_mode=2)
            await redeliver.publish(again, names.retry(self.service.name, 0))
            async with asyncio.timeout(60):
                while not await self.depth(self.queue):
                    await asyncio.sleep(0.02)
            await short.delete(if_unused=False, if_empty=False)
        await self.apply()

    def _queues(self) -> Sequence[Queue]:
        return plan([self.service.layout()]).queues

    async def depth(self, queue: str) -> int:
        """How many wait in a queue."""
        async with open_looks(self.url) as looks:
            return (await looks.depths([queue]))[queue].ready

    @asynccontextmanager
    async def working(self, name: str = "service", **more: Any) -> AsyncIterator[None]:
        """A worker, while this lasts."""
        settings = WorkerSettings(amqp_url=self.url, worker_name=f"worker-{name}", **more)
        worker = Worker(self.load(name), settings, self.store)
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        await until(lambda: worker.consuming or task.done())
        yield
        stop.set()
        await task

    def world(self, name: str = "world") -> list[str]:
        """What was done."""
        path = self.folder / name
        return path.read_text().split() if path.exists() else []

    async def journal(self) -> dict[str, str]:
        """The outcome of each event."""
        rows = await self.store.read(
            lambda tx: tx.query(
                "SELECT event_id, outcome FROM journal WHERE service = ?", (self.service.name,)
            )
        )
        return dict(rows)

    def start(
        self,
        *arguments: str,
        module: Sequence[str] = ("fleet.cli.failed",),
        stdin: int = subprocess.DEVNULL,
        **more: Any,
    ) -> subprocess.Popen[str]:
        """Start `replay-failed`."""
        command, *rest = arguments
        handlers = ["--handlers", f"{self.module}:service"]
        return subprocess.Popen(
            [sys.executable, "-m", *module, command, *handlers, *rest],
            cwd=self.folder,
            env={**self.environment(), **more},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def environment(self) -> dict[str, str]:
        """What a process of the fleet is told."""
        return {**os.environ, "AMQP_URL": self.url, "STORE_URL": self.store_url}

    async def counted(self, queue: str, count: int) -> None:
        """Wait until so many wait in a queue: what goes back is counted a moment later."""

        async def so_many() -> bool:
            return await self.depth(queue) == count

        await until(so_many)

    async def is_empty(self, queue: str) -> bool:
        """Whether nothing waits there."""
        return not await self.depth(queue)

    async def cli(self, *arguments: str, code: int = 0, **more: Any) -> Any:
        """What `replay-failed` says, as JSON where it is that; it must end with `code`."""
        process = self.start(*arguments, **more)
        out, err = await asyncio.to_thread(process.communicate, timeout=120)
        assert process.returncode == code, (process.returncode, out, err)
        try:
            return json.loads(out)
        except ValueError:
            return out + err


@pytest.fixture
async def shop(amqp_url: str, store_url: str, tmp_path: Path) -> AsyncGenerator[Shop, None]:
    """A shop on this test's own virtual host."""
    own = Shop(amqp_url, store_url, tmp_path)
    await own.open()
    yield own
    await own.store.close()


@pytest.fixture
async def fresh_shop(
    fresh_broker: Any, store_url: str, tmp_path: Path
) -> AsyncGenerator[Shop, None]:
    """A shop on a broker of its own, that may die."""
    own = Shop(fresh_broker.amqp_url, store_url, tmp_path)
    await own.open()
    yield own
    await own.store.close()


@pytest.fixture
def wait() -> Callable[..., Any]:
    """Waits for a condition."""
    return until
