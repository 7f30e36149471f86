"""Another layout for a broker that runs: nothing lost, nothing done twice, killed at any step."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleet import clock
from fleet.amqp.connection import Link
from fleet.amqp.harvest import open_harvest
from fleet.amqp.looks import open_looks
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.broker import Management, RunningBroker
from fleet.core.envelope import event_headers
from fleet.core.errors import NetworkError, TopologyError
from fleet.core.events import Event, write_event
from fleet.core.retry import RetryPolicy
from fleet.core.ulid import make_ulid
from fleet.demo.place import lay_out
from fleet.store import Store, leases, open_store
from publisher.lanes import check_lanes
from tests.waiting import until
from topology import names
from topology.model import Arguments, Lanes, Limits, Plan
from topology.plan import plan
from workers.fed import check_fed
from workers.registry import Service
from workers.settings import WorkerSettings
from workers.worker import Worker

ROOT = Path(__file__).parents[3]
DEADLINE_S = 120
MODULE = """
import os
from topology.model import Lanes, Limits, ServiceLayout

class Service:
    def layout(self):
        limits = Limits(
            max_length=5000, lane_max_length=500, lane_max_bytes=1 << 20, ttl_ms=3_600_000
        )
        lanes = Lanes(partitions=int(os.environ.get("LANES", "4")))
        return ServiceLayout("mine", ("wallet.*",), lanes=lanes, limits=limits)

service = Service()
"""


class Seen(msgspec.Struct, frozen=True):
    """The numbers of the ticks of one pair, as they came."""

    numbers: tuple[int, ...] = ()


class Ground:
    """A service at work on a virtual host of its own, and the command that migrates it."""

    def __init__(self, broker: RunningBroker, url: str, store_url: str, folder: Path) -> None:
        self.url = url
        self.store_url = store_url
        self.store: Store = open_store(self.store_url)
        self._folder = folder
        self._management = broker.management_url or ""
        (folder / "mine.py").write_text(MODULE)

    def service(self, lanes: int = 4, **limits: int) -> Service:
        """The service; each wallet event is away at first, and is written down once it is done."""
        service = Service("mine", lanes=Lanes(partitions=lanes), limits=Limits(**limits))

        @service.handler("market.tick", state=Seen, max_age=600)
        def on_tick(ctx: Any, payload: dict[str, Any]) -> None:
            seen = ctx.state or Seen()
            ctx.keep(Seen((*seen.numbers, payload["number"])))

        @service.handler("wallet.*", retry=RetryPolicy(attempts=9, base=0.3, cap=0.6))
        def on_wallet(ctx: Any, payload: dict[str, Any]) -> None:
            if payload["hard"] and ctx.attempt == 1:
                raise NetworkError("away")
            ctx.write(partial(_count, event_id=ctx.event.event_id))

        return service

    async def lay_out(self, lanes: int = 4, odd: Mapping[str, Arguments] | None = None) -> Plan:
        """Apply another layout than the module's, some queues of it with odd arguments."""
        layout = plan([self.service(lanes).layout()])
        changed = odd or {}
        queues = tuple(
            replace(q, arguments=changed.get(q.name, q.arguments)) for q in layout.queues
        )
        layout = replace(layout, queues=queues)
        await lay_out(layout, self.url, self.store)
        return layout

    @asynccontextmanager
    async def working(self, count: int = 2, lanes: int = 4) -> AsyncIterator[None]:
        """Workers, while this lasts."""
        stop = asyncio.Event()
        workers = [
            Worker(
                self.service(lanes),
                WorkerSettings(amqp_url=self.url, worker_name=f"w{number}-{time.monotonic_ns()}"),
                self.store,
            )
            for number in range(count)
        ]
        tasks = [asyncio.create_task(worker.run(stop)) for worker in workers]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    def start(self, *arguments: str, lanes: int = 4) -> subprocess.Popen[str]:
        """Start `fleet topology` as an operator does."""
        command, *more = arguments
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "fleet",
                "topology",
                command,
                "--handlers",
                "mine:service",
                *more,
            ],
            cwd=self._folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "AMQP_URL": self.url,
                "MANAGEMENT_URL": self._management,
                "STORE_URL": self.store_url,
                "LANES": str(lanes),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    async def run(self, *arguments: str, code: int = 0, lanes: int = 4) -> str:
        """Run it to its end; what it says."""
        process = self.start(*arguments, lanes=lanes)
        out, err = await asyncio.to_thread(process.communicate, timeout=240)
        assert process.returncode == code, (process.returncode, out, err)
        return out if code != 2 else err

    async def killed(self, when: Callable[[], Awaitable[bool]], lanes: int = 4) -> None:
        """Run a migration and kill -9 it once something is seen, or soon after its start."""
        process = self.start("migrate", lanes=lanes)
        try:
            async with asyncio.timeout(120):
                while process.poll() is None and not await when():
                    await asyncio.sleep(0.02)
        finally:
            process.kill()
            _, said = process.communicate()
            assert "Traceback" not in said

    async def depth(self, queue: str) -> int | None:
        """How many wait in a queue; None where there is none."""
        async with open_looks(self.url) as looks:
            found = (await looks.depths([queue])).get(queue)
            return found.ready if found else None

    async def holds(self, queue: str, count: int) -> bool:
        """Whether so many wait in a queue: what was moved is counted a moment later."""
        return await self.depth(queue) == count

    async def counts(self) -> Counter[str]:
        """How often each event's writes were written."""
        rows = await self.store.read(lambda tx: tx.query("SELECT event_id, value FROM facts"))
        return Counter({event_id: int(value) for event_id, value in rows})

    async def states(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The lane of each pair, and the numbers that were seen of it."""
        rows = await self.store.read(
            lambda tx: tx.query("SELECT state_key, lane, body FROM lane_states")
        )
        return {
            key: (lane, msgspec.json.decode(body, type=Seen).numbers) for key, lane, body in rows
        }


def _count(tx: Any, event_id: str) -> None:
    tx.execute(
        "INSERT INTO facts (name, value, event_id) VALUES (?, '1', ?)"
        " ON CONFLICT (name) DO UPDATE"
        " SET value = CAST(CAST(facts.value AS INTEGER) + 1 AS TEXT)",
        (event_id, event_id),
    )


@pytest.fixture
async def ground(
    broker: RunningBroker, amqp_url: str, store_url: str, tmp_path: Path
) -> AsyncIterator[Ground]:
    """Ground on this test's own virtual host and store."""
    own = Ground(broker, amqp_url, store_url, tmp_path)
    await own.store.open()
    yield own
    await own.store.close()


@pytest.fixture
async def publisher(amqp_url: str) -> AsyncIterator[ConfirmedPublisher]:
    """Publishes as the bridge does."""
    async with Link(amqp_url, "test") as link, ConfirmedPublisher(link) as own:
        yield own


def make(kind: str, payload: dict[str, Any]) -> Event:
    """A fresh event."""
    now_ms = clock.now_ms()
    return Event(make_ulid(now_ms, os.urandom(10)), kind, "pf_agent_test", payload, now_ms)


async def send(publisher: ConfirmedPublisher, event: Event, lanes: int = 4) -> str:
    """Publish an event; its id."""
    headers: dict[str, Any] = dict(event_headers(event))
    if event.type == "market.tick":
        headers[names.PARTITION] = names.partition(event.payload["pair"], lanes)
    await publisher.publish(names.INGEST, event.type, write_event(event), headers=headers, lane=0)
    return event.event_id


WORK, BUCKET, FAILED = "pf.mine", "pf.mine.retry.02", "pf.mine.failed"
ODD: dict[str, Arguments] = {
    BUCKET: {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": names.REDELIVER,
        "x-dead-letter-routing-key": WORK,
    },
    FAILED: {"x-queue-type": "quorum", "x-delivery-limit": 77},
    names.UNROUTED: {"x-queue-type": "classic"},
}


@asynccontextmanager
async def loaded(ground: Ground, publisher: ConfirmedPublisher) -> AsyncIterator[None]:
    """Wallet events, while this lasts; in the end each of them is done, and once."""
    ids: list[str] = []
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            ids.append(await send(publisher, make("wallet.x", {"hard": len(ids) % 3 == 0})))
            await asyncio.sleep(0.01)

    async def all_done() -> bool:
        return set(ids) <= set(await ground.counts())

    loading = asyncio.create_task(load())
    try:
        yield
    finally:
        stop.set()
        await loading
    await until(all_done, DEADLINE_S)
    counts = await ground.counts()
    assert {each: counts[each] for each in ids} == dict.fromkeys(ids, 1)


async def test_a_migration_killed_at_every_step_loses_nothing_under_load(
    ground: Ground, publisher: ConfirmedPublisher
):
    """Queues of each kind are made anew beside working workers: each event is done, and once."""
    await ground.lay_out(odd=ODD)
    ticks = [make("market.tick", {"pair": f"P{n % 5}", "number": n // 5}) for n in range(50)]
    for tick in ticks:
        await send(publisher, tick)
    await publisher.publish(names.DLX, FAILED, b"{}", headers={"x-error-message": "kept"})
    await publisher.publish(names.EVENTS, "nobody.wants", b"{}")
    async with ground.working(), loaded(ground, publisher):

        async def aside() -> bool:
            return await ground.depth(names.moving(WORK)) is not None

        async def gone() -> bool:
            return await ground.depth(WORK) is None

        async def back() -> bool:
            return await ground.depth(WORK) is not None and random.random() < 0.2  # noqa: S311 - any

        await ground.killed(aside)
        await ground.killed(gone)
        await ground.killed(back)
        assert "The broker is as planned." in await ground.run("migrate")
    seen = {pair: numbers for pair, (_, numbers) in (await ground.states()).items()}
    assert seen == {f"P{n}": tuple(range(10)) for n in range(5)}
    await until(lambda: ground.holds(FAILED, 1))
    await until(lambda: ground.holds(names.UNROUTED, 1))
    for queue in (WORK, BUCKET, FAILED, names.UNROUTED, "pf.mine.ticks.0"):
        assert await ground.depth(names.moving(queue)) is None
    assert await ground.run("check") == "The broker is as planned.\n"


async def test_queues_become_classic_under_load_and_quorum_again_with_fewer_lanes(
    ground: Ground, publisher: ConfirmedPublisher
):
    """Another type beside working workers, 4 lanes become 2: nothing is lost, early or twice."""
    await ground.lay_out()
    classic = ("--queue-type", "classic")
    for number in range(5):
        for pair in range(8):
            await send(publisher, make("market.tick", {"pair": f"P{pair}", "number": number}))
    async with ground.working(), loaded(ground, publisher):
        said = json.loads(await ground.run("migrate", *classic, "--json"))
        assert {WORK, BUCKET, FAILED, names.UNROUTED, "pf.mine.ticks.3"} <= {*said["renewed"]}
        assert await ground.run("check", *classic) == "The broker is as planned.\n"
    for number in range(5, 10):
        for pair in range(8):
            await send(publisher, make("market.tick", {"pair": f"P{pair}", "number": number}))
    said = json.loads(await ground.run("migrate", "--json", lanes=2))
    assert said["resized"] == ["mine"]
    assert await ground.run("check", lanes=2) == "The broker is as planned.\n"
    async with ground.working(2, lanes=2), loaded(ground, publisher):

        async def whole() -> bool:
            return all(len(seen) == 10 for _, seen in (await ground.states()).values())

        await until(whole, DEADLINE_S)
    assert await ground.states() == {
        pair: (f"pf.mine.ticks.{names.partition(pair, 2)}", tuple(range(10)))
        for pair in (f"P{n}" for n in range(8))
    }


async def test_what_consumers_hold_on_to_is_left_as_it_was(
    ground: Ground, publisher: ConfirmedPublisher
):
    """A queue is never deleted under a consumer's hands; all that stepped aside comes back."""
    await ground.lay_out(odd={WORK: {**ODD[FAILED], "x-queue-type": "quorum"}})
    for _ in range(2):
        await send(publisher, make("wallet.x", {"hard": False}))
    async with open_harvest(ground.url, WORK) as holder:
        assert await holder.gather(lambda _: True) == 2
        late = await send(publisher, make("wallet.x", {"hard": False}))
        said = json.loads(await ground.run("migrate", "--patience", "2", "--json", code=1))
        assert WORK in said["held"]  # lanes, which nobody had the patience to count, too
        await until(lambda: ground.holds(WORK, 1))
        assert await ground.depth(names.moving(WORK)) is None
    assert "moves 3 messages" in await ground.run("check", code=1)
    async with ground.working(1):

        async def all_done() -> bool:
            return len(await ground.counts()) == 3

        await until(all_done, DEADLINE_S)
    assert late in await ground.counts()


async def test_lanes_in_another_number_keep_each_pair_s_order_and_state(
    ground: Ground, publisher: ConfirmedPublisher
):
    """4 lanes become 6: killed while it gathers and while it spreads, no tick is lost or early."""
    await ground.lay_out()
    for number in range(5):
        for pair in range(8):
            await send(publisher, make("market.tick", {"pair": f"P{pair}", "number": number}))
    async with ground.working(1):

        async def half() -> bool:
            return [len(seen) for _, seen in (await ground.states()).values()] == [5] * 8

        await until(half, DEADLINE_S)
        said = await ground.run("migrate", lanes=6, code=2)
        assert "is at work, and the keys of mine are about to get other lanes" in said
        assert "stop the workers of mine" in said
    await _refused_beside_a_bridge(ground)
    for number in range(5, 10):
        for pair in range(8):
            await send(publisher, make("market.tick", {"pair": f"P{pair}", "number": number}))
    before = json.loads(await ground.run("migrate", "--dry-run", "--json", lanes=6))
    assert before["resize"] == {"mine": {"from": 4, "to": 6, "messages": 40}}

    async def gathers() -> bool:
        return await ground.depth("pf.mine.ticks:moving") not in (None, 0)

    async def spreads() -> bool:
        return await ground.depth("pf.mine.ticks.5") is not None

    await ground.killed(gathers, lanes=6)
    for lanes in (4, 6):
        with pytest.raises(TopologyError, match="The lanes of mine are being moved"):
            await check_fed(ground.service(lanes), ground.store)
        with pytest.raises(TopologyError, match="The lanes of mine are being moved"):
            await check_lanes(ground.store, lanes)
    assert "PF_PARTITIONS=6" in await ground.run("migrate", code=2)
    await ground.killed(spreads, lanes=6)
    await ground.run("migrate", lanes=6)
    assert await ground.run("check", lanes=6) == "The broker is as planned.\n"
    with pytest.raises(TopologyError, match="laid out with 6 lanes, this worker has 4"):
        await check_fed(ground.service(4), ground.store)
    async with ground.working(2, lanes=6):

        async def whole() -> bool:
            return all(len(seen) == 10 for _, seen in (await ground.states()).values())

        await until(whole, DEADLINE_S)
    of = {pair: names.partition(pair, 6) for pair in (f"P{n}" for n in range(8))}
    assert await ground.states() == {
        pair: (f"pf.mine.ticks.{number}", tuple(range(10))) for pair, number in of.items()
    }


async def test_more_than_a_lane_can_hold_is_refused_before_anything(
    ground: Ground, publisher: ConfirmedPublisher, management: Management, vhost: str
):
    """One new lane might get all of it, and no worker could make room there: exit code 2."""
    await ground.run("apply")
    pairs = {names.partition(pair, 4): pair for pair in map(str, range(99))}
    for pair in pairs.values():
        await send(publisher, make("market.tick", {"pair": pair, "number": 0, "x": "x" * 400_000}))

    def are_counted() -> bool:
        found = [each for each in management.queues(vhost) if ".ticks." in each["name"]]
        return sum(each.get("message_bytes", 0) for each in found) > 4 * 400_000

    await until(are_counted)
    said = await ground.run("migrate", lanes=2, code=2)
    assert "bytes wait in the lanes of mine, and one lane holds 1,048,576" in said
    await ground.run("check")
    await check_fed(ground.service(4), ground.store)


async def _refused_beside_a_bridge(ground: Ground) -> None:
    """While a bridge leads its ticks would overtake those that are moved."""
    now_ms = clock.now_ms()
    lease = await ground.store.run(
        lambda tx: leases.acquire(tx, "bridge:pf_agent_test", "other", now_ms, 600_000)
    )
    assert lease
    said = await ground.run("migrate", lanes=6, code=2)
    assert "The bridge of pf_agent_test is at work" in said
    assert "stop `fleet publisher`" in said
    await ground.store.run(lambda tx: leases.release(tx, lease))
