"""/readyz says whether work is really done, and /metrics how much."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from fleet.amqp.removal import remove
from fleet.broker.ports import free
from fleet.telemetry.health import served
from fleet.telemetry.settings import HealthSettings
from topology import names
from workers import vitals
from workers.context import Context
from workers.registry import Service
from workers.worker import Worker


class Asked:
    """The health server of a worker, as an orchestrator sees it."""

    def __init__(self, address: str, session: aiohttp.ClientSession, until: Any) -> None:
        self._address = address
        self._session = session
        self._until = until

    async def ready(self) -> tuple[int, dict[str, Any]]:
        """Status and body of /readyz."""
        async with self._session.get(f"{self._address}/readyz") as answer:
            return answer.status, await answer.json()

    async def until_ready(self) -> None:
        """Wait for a 200."""
        await self._until(self._is_ready)

    async def reason(self, part: str, words: str = "") -> str:
        """Wait until this part is the reason for a 503, in these words; what it says."""
        said: list[str] = []

        async def unready() -> bool:
            status, body = await self.ready()
            said.append(body["reasons"].get(part, ""))
            return status == 503 and bool(said[-1]) and words in said[-1]

        await self._until(unready)
        return said[-1]

    async def page(self) -> str:
        """/metrics."""
        async with self._session.get(f"{self._address}/metrics") as answer:
            assert answer.status == 200
            return await answer.text()

    async def _is_ready(self) -> bool:
        return (await self.ready())[0] == 200


@asynccontextmanager
async def asked(bench: Any, worker: Worker) -> AsyncIterator[Asked]:
    """The worker's health server, on a port of its own."""
    (port,) = free(1)
    async with (
        served(HealthSettings(health_port=port), worker.health),
        aiohttp.ClientSession() as session,
    ):
        yield Asked(f"http://127.0.0.1:{port}", session, bench.until)


async def test_a_cancelled_consumer_is_unready_and_heals(bench: Any, service: Service):
    """The queue goes: 503 with the reason. It is there again: 200, and what comes is handled."""

    @service.handler("job.completed")
    async def handle(_context: Context, _payload: dict[str, Any]) -> None: ...

    await bench.lay_out(service)
    worker = await bench.start(service)
    queue = names.work_queue(service.name)
    async with asked(bench, worker) as health:
        await health.until_ready()
        await remove(bench.url, [], [queue])
        assert queue in await health.reason("consumers")
        await bench.lay_out(service)
        await health.until_ready()
        event = bench.event("job.completed")
        await bench.publish(event)
        assert await bench.settled(service, [event]) == {event.event_id: "done"}


async def test_an_idle_worker_stays_ready(
    bench: Any, service: Service, monkeypatch: pytest.MonkeyPatch
):
    """A consumer that hears nothing starts anew now and then; that is no reason."""
    monkeypatch.setattr(vitals, "AWAY_S", 30.0)  # however slow the machine is at it

    @service.handler("job.completed")
    async def handle(_context: Context, _payload: dict[str, Any]) -> None: ...

    await bench.lay_out(service)
    worker = await bench.start(service, silence_s=0.2)
    queue, tags, answers = names.work_queue(service.name), set(), set()
    async with asked(bench, worker) as health:
        await health.until_ready()

        async def anew_three_times() -> bool:
            answers.add((await health.ready())[0])
            consumer = worker._flow.consumers.all[queue]._consumer
            tags.add(consumer.tag if consumer else "")
            return len(tags - {""}) > 3

        await bench.until(anew_three_times)
    assert answers == {200}


async def test_a_lost_connection_is_unready_and_heals(
    bench: Any, service: Service, management: Any, vhost: str
):
    """The broker closes all connections: 503 with the reason, then 200."""

    @service.handler("job.completed")
    async def handle(_context: Context, _payload: dict[str, Any]) -> None: ...

    await bench.lay_out(service)
    worker = await bench.start(service)
    async with asked(bench, worker) as health:
        await health.until_ready()
        seen = threading.Event()
        closing = asyncio.to_thread(close_connections, management, vhost, seen)
        async with asyncio.TaskGroup() as group:
            group.create_task(closing)
            try:
                await health.reason("publisher", "no connection")
            finally:
                seen.set()
        await health.until_ready()


def close_connections(management: Any, vhost: str, seen: threading.Event) -> None:
    """Close what a worker publishes over, until somebody has seen that it was away.

    It may be back before anybody looks, and the management API learns of connections late.
    """
    while not seen.wait(0.05):
        for each in management.get("connections") or []:
            if each.get("vhost") == vhost and "publishes" in each.get("user_provided_name", ""):
                management.call("DELETE", f"connections/{quote(each['name'], safe='')}")


async def test_a_backlog_of_which_nothing_comes_is_a_reason(
    bench: Any, service: Service, monkeypatch: pytest.MonkeyPatch
):
    """The consumer stands and has room, the queue is not empty, nothing comes: not ready."""
    monkeypatch.setattr(vitals, "LOOK_S", 0.1)
    held = asyncio.Event()

    @service.handler("job.completed")
    async def handle(_context: Context, _payload: dict[str, Any]) -> None:
        await held.wait()

    await bench.lay_out(service)
    worker = await bench.start(service, prefetch=1)
    # The broker sends one at a time; this worker believes that it has room for more.
    worker._flow.consumers.all[names.work_queue(service.name)].prefetch = 100
    async with asked(bench, worker) as health:
        await health.until_ready()
        for _ in range(3):
            await bench.publish(bench.event("job.completed"))
        await health.reason("deliveries", "2 wait in")
        held.set()
        await health.until_ready()


async def test_a_worker_that_drains_takes_itself_out(bench: Any, service: Service):
    """From the stop request on /readyz says draining, until what runs has ended."""
    running, held = asyncio.Event(), asyncio.Event()

    @service.handler("job.completed")
    async def handle(_context: Context, _payload: dict[str, Any]) -> None:
        running.set()
        await held.wait()

    await bench.lay_out(service)
    worker = await bench.start(service)
    async with asked(bench, worker) as health:
        await bench.publish(bench.event("job.completed"))
        await running.wait()
        stopping = asyncio.create_task(bench.stop(worker))
        assert await health.reason("process") == "draining"
        assert (await health.ready())[1]["status"] == "draining"
        held.set()
        await stopping


async def test_what_became_of_deliveries_is_counted(bench: Any, service: Service):
    """Done, skipped, retried and failed are told apart; a type that nobody declared is `other`."""

    @service.handler("job.*")
    async def handle(_context: Context, payload: dict[str, Any]) -> None:
        if "error" in payload:
            raise ValueError(payload["error"])

    await bench.lay_out(service)
    worker = await bench.start(service)
    async with asked(bench, worker) as health:
        known, unknown = bench.event("job.completed"), bench.event("job.strange")
        for event in (known, unknown):
            await bench.publish(event)
        assert set((await bench.settled(service, [known, unknown])).values()) == {"done"}
        await bench.publish(known)
        bad = bench.event("job.failed", {"error": "boom"})
        await bench.publish(bad)
        assert await bench.settled(service, [bad]) == {bad.event_id: "failed"}
        await bench.until(lambda: worker.handled >= 4)
        page = await health.page()
    events = f'service="{service.name}",type='
    assert f'fleet_events_total{{outcome="done",{events}"job.completed"}} 1.0' in page
    assert f'fleet_events_total{{outcome="done",{events}"other"}} 1.0' in page
    assert f'fleet_events_total{{outcome="skipped",{events}"job.completed"}} 1.0' in page
    assert f'fleet_events_total{{outcome="failed",{events}"job.failed"}} 1.0' in page
    assert f'fleet_failures_total{{class="logic",service="{service.name}"}} 1.0' in page
    assert f'fleet_event_age_seconds_count{{service="{service.name}"}} 2.0' in page
    ran = f'fleet_handler_seconds_count{{handler="handle",service="{service.name}"}} '
    assert ran + "3.0" in page
    assert f'fleet_consumers{{service="{service.name}"}} 1.0' in page
    assert f'fleet_in_flight{{service="{service.name}"}} 0.0' in page
