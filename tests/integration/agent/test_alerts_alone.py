"""Alerts of a fleet whose handlers are not the trading agent's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agent.alerting.service import service
from fleet import clock
from fleet.amqp.admin import Admin
from fleet.amqp.connection import Link
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.alerts import alert_event
from fleet.core.envelope import event_headers
from fleet.core.events import write_event
from fleet.store import alerts, bindings, open_store
from tests.waiting import until
from topology import names
from topology.apply import apply
from topology.plan import plan
from workers.settings import WorkerSettings
from workers.worker import Worker


async def test_a_service_of_their_own_writes_them_down_and_tells_the_webhook(
    amqp_url: str, store_url: str, monkeypatch: pytest.MonkeyPatch
):
    """One worker of `agent.alerting.service` is all it takes, without an agent's id or key."""
    told: list[Any] = []

    async def hear(request: web.Request) -> web.Response:
        told.append(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/", hear)
    monkeypatch.delenv("PF_AGENT_ID", raising=False)
    store = open_store(store_url)
    await store.open()
    async with TestServer(app) as server, await Admin.open(amqp_url) as admin:
        monkeypatch.setenv("ALERT_WEBHOOK_URL", str(server.make_url("/")))
        bound = (await apply(plan([service.layout()]), admin)).patterns["alerts"]
        await store.run(lambda tx: bindings.record(tx, "alerts", bound, 0))
        worker, stop = Worker(service, WorkerSettings(amqp_url=amqp_url), store), asyncio.Event()
        running = asyncio.create_task(worker.run(stop))
        event = alert_event("me", "disk_full", clock.now_ms(), key="w-1")
        async with Link(amqp_url, "test") as link, ConfirmedPublisher(link) as publisher:
            body, headers = write_event(event), event_headers(event)
            await publisher.publish(names.INGEST, event.type, body, headers=headers)
        await until(lambda: told or running.done())
        stop.set()
        await running
    assert [each["name"] for each in told] == ["disk_full"]
    row = await store.read(lambda tx: alerts.get(tx, event.event_id))
    assert row is not None
    await store.close()
