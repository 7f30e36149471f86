"""`fleet exporter` shows what is true of a fleet, and nothing that it cannot ask."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from fleet import clock
from fleet.amqp.admin import Admin
from fleet.broker.ports import free
from fleet.store import bindings, leases, open_store
from fleet.telemetry import metrics
from tests.waiting import DEADLINE_S
from topology import names
from topology.apply import apply
from topology.plan import plan
from workers.registry import Service

HANDLERS = """
from topology.model import Lanes
from workers.registry import Service
service = Service("shown", lanes=Lanes())

@service.handler("job.completed")
async def handle(context, payload): ...

@service.handler("market.tick")
async def tick(context, payload): ...
"""


def layout() -> Service:
    """The same service in this process."""
    space: dict[str, Service] = {}
    exec(HANDLERS, space)  # noqa: S102 - our own text
    return space["service"]


@asynccontextmanager
async def exporter(amqp_url: str, folder: Path) -> AsyncIterator[str]:
    """The process, as an operator starts it; its address."""
    (folder / "shown.py").write_text(HANDLERS)
    (port,) = free(1)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "fleet",
        "exporter",
        "--handlers",
        "shown:service",
        cwd=folder,
        env={
            **os.environ,
            "AMQP_URL": amqp_url,
            "STORE_URL": f"sqlite:///{folder}/fleet.sqlite3",
            "HEALTH_PORT": str(port),
            "EXPORTER_EVERY_S": "1",
            "EXPORTER_AUDIT_EVERY_S": "1",
        },
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), DEADLINE_S) == 0


def ask(address: str) -> str:
    """The body, whatever the status; empty where nobody listens yet."""
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 - our own server
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except OSError:
        return ""


async def until_shown(address: str, *lines: str) -> str:
    """Wait until the page has all of these lines; the page."""
    deadline = time.monotonic() + DEADLINE_S
    page = ""
    while time.monotonic() < deadline:
        page = await asyncio.to_thread(ask, f"{address}/metrics")
        if all(line in page.splitlines() for line in lines):
            return page
        await asyncio.sleep(0.1)
    pytest.fail(f"not shown: {[each for each in lines if each not in page.splitlines()]}")


async def test_the_fleet_is_shown_as_it_is(amqp_url: str, tmp_path: Path):
    """Depths, lanes nobody has, what failed and the audit are on the page; then the queue goes."""
    service = layout()
    store = open_store(f"sqlite:///{tmp_path}/fleet.sqlite3")
    await store.open()
    async with await Admin.open(amqp_url) as admin:
        applied = await apply(plan([service.layout()]), admin)
    bound = applied.patterns[service.name]
    await store.run(lambda tx: bindings.record(tx, service.name, bound, 0))
    now_ms = clock.now_ms()
    await store.run(lambda tx: leases.acquire(tx, "bridge:pf_agent_a", "me", now_ms, 600_000))
    await store.run(lambda tx: leases.acquire(tx, "bridge:pf_agent_b", "me", now_ms - 9, 1))
    await store.close()
    for queue, count in (("pf.shown", 3), ("pf.shown.failed", 2), ("pf.shown.retry.02", 1)):
        await put(amqp_url, queue, count)
    async with exporter(amqp_url, tmp_path) as address:
        page = await until_shown(
            address,
            'fleet_queue_depth{queue="work",service="shown"} 3.0',
            'fleet_queue_depth{queue="lanes",service="shown"} 0.0',
            'fleet_queue_consumers{service="shown"} 0.0',
            'fleet_lanes_unowned{service="shown"} 16.0',
            'fleet_failed_depth{service="shown"} 2.0',
            'fleet_retry_depth{bucket="1",service="shown"} 1.0',
            'fleet_parked_depth{queue="unrouted"} 0.0',
            'fleet_bridge_led{bridge="pf_agent_a"} 1.0',
            'fleet_bridge_led{bridge="pf_agent_b"} 0.0',
            'fleet_exporter_up{part="audit"} 1.0',
            "fleet_unaccounted 0.0",
        )
        assert "fleet_audit_timestamp_seconds 0.0" not in page
        body = await asyncio.to_thread(ask, f"{address}/readyz")
        assert '"status": "ready"' in body


async def test_a_broker_that_is_away_is_said_and_nothing_else(fresh_broker: Any, tmp_path: Path):
    """Killed: what it told is not shown, and 503. Back: all of it again, from the same process."""
    service = layout()
    store = open_store(f"sqlite:///{tmp_path}/fleet.sqlite3")
    await store.open()
    async with await Admin.open(fresh_broker.amqp_url) as admin:
        bound = (await apply(plan([service.layout()]), admin)).patterns[service.name]
    # A stream whose broker is killed soon after it was made may not come back; a clean restart
    # writes it down.
    await asyncio.to_thread(fresh_broker.restart)
    await store.run(lambda tx: bindings.record(tx, service.name, bound, 0))
    await store.close()
    depth = 'fleet_queue_depth{queue="work",service="shown"} 0.0'
    async with exporter(fresh_broker.amqp_url, tmp_path) as address:
        await until_shown(address, 'fleet_exporter_up{part="audit"} 1.0', depth)
        await asyncio.to_thread(fresh_broker.kill)
        page = await until_shown(
            address,
            'fleet_exporter_up{part="broker"} 0.0',
            'fleet_exporter_up{part="audit"} 0.0',
            'fleet_exporter_up{part="store"} 1.0',
        )
        assert depth not in page
        assert "fleet_unaccounted 0.0" in page
        assert "Cannot reach the broker" in await asyncio.to_thread(ask, f"{address}/readyz")
        await asyncio.to_thread(fresh_broker.restart)
        await until_shown(
            address,
            'fleet_exporter_up{part="broker"} 1.0',
            'fleet_exporter_up{part="audit"} 1.0',
            depth,
        )


async def test_before_an_audit_has_ended_nothing_is_said_to_be_proven(tmp_path: Path):
    """A broker that was never there: no 0 stands for events that nobody has looked for."""
    store = open_store(f"sqlite:///{tmp_path}/fleet.sqlite3")
    await store.open()
    await store.close()
    async with exporter("amqp://guest:guest@127.0.0.1:9/", tmp_path) as address:
        await until_shown(
            address,
            'fleet_exporter_up{part="audit"} 0.0',
            "fleet_audit_timestamp_seconds 0.0",
            "fleet_unaccounted NaN",
            "fleet_doubled NaN",
        )


async def put(amqp_url: str, queue: str, count: int) -> None:
    """So many messages into a queue."""
    connection = await aio_pika.connect(amqp_url)
    async with connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.get_exchange(names.REDELIVER, ensure=False)
        failed = await channel.get_exchange(names.DLX, ensure=False)
        for _ in range(count):
            target = failed if queue.endswith(".failed") else exchange
            message = aio_pika.Message(secrets.token_bytes(8), delivery_mode=2)
            await target.publish(message, queue)


def test_every_gauge_of_the_exporter_is_its_own():
    """Nothing that is about the whole fleet is on a worker's page."""
    whole = {family.name for family in metrics.FLEET.collect()}
    own = {family.name for family in metrics.REGISTRY.collect()}
    assert whole
    assert not whole & own
