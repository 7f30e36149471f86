"""The health server: alive while the loop answers, ready while every check is content."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from fleet.broker.ports import free
from fleet.core.errors import SettingsError
from fleet.telemetry import health as module
from fleet.telemetry import metrics
from fleet.telemetry.health import Health, served
from fleet.telemetry.settings import HealthSettings


@asynccontextmanager
async def server(health: Health) -> AsyncIterator[Any]:
    """Asks the server of `health` for a path; its status, type and text."""
    (port,) = free(1)
    async with (
        served(HealthSettings(health_port=port), health, metrics.REGISTRY, metrics.FLEET),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):

        async def ask(path: str, accept: str = "*/*") -> tuple[int, str, str]:
            async with session.get(path, headers={"Accept": accept}) as answer:
                return answer.status, answer.headers["Content-Type"], await answer.text()

        yield ask


async def test_every_check_must_be_content():
    """One reason makes a 503 that names it; none a 200. Alive is another question."""
    health, trouble = Health("one"), {"store": "away", "broker": ""}
    health.check("store", lambda: trouble["store"])
    health.check("broker", lambda: trouble["broker"])
    health.tell("role", lambda: "leader")
    async with server(health) as ask:
        status, _, text = await ask("/readyz")
        assert status == 503
        assert '"store": "away"' in text
        assert "broker" not in text
        trouble["store"] = ""
        status, _, text = await ask("/readyz")
        assert (status, '"role": "leader"' in text) == (200, True)
        health.draining = True
        assert (await ask("/readyz"))[0] == 503
        assert (await ask("/livez"))[0] == 200


async def test_metrics_come_in_the_format_that_is_asked_for():
    """Text for who asks nothing, OpenMetrics with one end for Prometheus."""
    async with server(Health("one")) as ask:
        status, kind, text = await ask("/metrics")
        assert (status, kind.startswith("text/plain")) == (200, True)
        assert "fleet_ready" in text
        status, kind, text = await ask("/metrics", "application/openmetrics-text; version=1.0.0")
        assert kind.startswith("application/openmetrics-text")
        assert text.count("# EOF") == 1


async def test_a_blocked_loop_is_seen(monkeypatch: pytest.MonkeyPatch):
    """What holds the loop up for half a second shows as lag of about that."""
    monkeypatch.setattr(module, "TICK_S", 0.05)
    health = Health("one")
    watching = asyncio.create_task(health.watch())
    await asyncio.sleep(0.02)
    time.sleep(0.5)  # noqa: ASYNC251 - the fault
    deadline = time.monotonic() + 60
    while metrics.LOOP_LAG._value.get() < 0.4 and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert metrics.LOOP_LAG._value.get() >= 0.4
    watching.cancel()


async def test_a_port_that_is_taken_is_one_sentence():
    """The operator is told which variable to correct."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = HealthSettings(health_port=taken.getsockname()[1])
        with pytest.raises(SettingsError, match="HEALTH_PORT"):
            async with served(settings, Health("one")):
                pass


async def test_without_a_port_nobody_listens():
    """The default serves nothing, and costs nothing but a look each second."""
    async with served(HealthSettings(health_port=0), Health("one")):
        pass
