"""`fleet worker --procs`: several processes of one command, under load, some of them killed."""

from __future__ import annotations

import asyncio
import json
import os
import urllib.error
import urllib.request
from collections import Counter
from typing import Any

import aio_pika
import psutil
import pytest

from fleet import clock
from fleet.broker import ports
from fleet.core.events import Event, write_event
from fleet.core.ulid import make_ulid
from tests.waiting import until
from topology import names

DEADLINE_S = 120


async def publish(fleet: Any, numbers: range) -> None:
    """Publish orders, confirmed; the effect of each is a line in the world."""
    connection = await aio_pika.connect(fleet.url)
    async with connection, connection.channel(on_return_raises=True) as channel:
        ingest = await channel.get_exchange(names.INGEST, ensure=False)
        for number in numbers:
            now_ms = clock.now_ms()
            event_id = make_ulid(now_ms, os.urandom(10))
            order = Event(event_id, "order.requested", "a", {"key": f"k{number}"}, now_ms)
            message = aio_pika.Message(
                write_event(order), headers={"x-event-id": event_id}, delivery_mode=2
            )
            await ingest.publish(message, order.type)


async def handled(fleet: Any, count: int) -> None:
    """Return once so many events are in the journal."""

    def ask(tx: Any) -> int:
        return int(tx.query("SELECT count(*) FROM journal")[0][0])

    async def enough() -> bool:
        return await fleet.store.read(ask) >= count

    await until(enough, DEADLINE_S)


def free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    while True:
        (first,) = ports.free(1)
        if all(ports.is_free(first + number) for number in range(count)):
            return first


def children(fleet: Any, name: str) -> list[psutil.Process]:
    """The worker processes under a supervisor."""
    return psutil.Process(fleet.pid(name)).children()


def health(port: int) -> tuple[int, dict[str, Any]]:
    """What /readyz answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, {}


@pytest.fixture
async def store(fleet: Any) -> Any:
    """The fleet's store, open."""
    await fleet.store.open()
    yield fleet.store
    await fleet.store.close()


@pytest.mark.usefixtures("store")
async def test_processes_that_are_killed_lose_and_double_nothing(fleet: Any):
    """A child that is killed is started anew; none outlives a supervisor that is killed."""
    port = free_ports(3)
    fleet.start("w", "--procs", "2", HEALTH_PORT=str(port))
    await until(lambda: health(port)[0] == 200, DEADLINE_S)
    for number in (1, 2):
        await until(lambda n=number: health(port + n)[1].get("name") == f"w-{n}", DEADLINE_S)

    publishing = asyncio.create_task(publish(fleet, range(300)))
    await handled(fleet, 50)
    victim = children(fleet, "w")[0]
    victim.kill()
    await publishing
    await until(lambda: len({*children(fleet, "w")} - {victim}) == 2, DEADLINE_S)
    await handled(fleet, 300)

    orphans = children(fleet, "w")
    await publish(fleet, range(300, 400))
    fleet.kill("w")
    assert not psutil.wait_procs(orphans, DEADLINE_S)[1]

    fleet.start("v", "--procs", "2")
    await handled(fleet, 400)
    fleet.leave("v")
    assert Counter(fleet.world.read_text().split()) == {f"k{n}": 1 for n in range(400)}


async def test_a_stop_request_drains_all_of_them(fleet: Any):
    """SIGTERM to the supervisor ends every process, each with its drain."""
    fleet.start("w", "--procs", "2")
    await until(lambda: fleet.log("w").count("worker ready") == 2, DEADLINE_S)
    workers = children(fleet, "w")
    fleet.leave("w")
    assert not any(each.is_running() for each in workers)
    assert fleet.log("w").count("worker drained") == 2


async def test_what_is_wrong_for_all_is_said_once(fleet: Any):
    """A service that nobody laid out: one sentence, and the end."""
    fleet.start("w", "--procs", "4", SERVICE="test.unknown")
    await until(lambda: fleet.is_dead("w"), DEADLINE_S)
    assert fleet.log("w").count("Nothing feeds the handlers") == 1
    assert fleet.code("w") == 2
