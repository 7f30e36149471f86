"""Whether a process does its work: /livez, /readyz and /metrics on a small server in its loop."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from fleet.core.errors import SettingsError
from fleet.telemetry import metrics
from fleet.telemetry.pages import Answer, listening
from fleet.telemetry.settings import HealthSettings

TICK_S: Final = 1.0
REMEMBERED: Final = 15
"""The worst lateness of so many looks is shown, so that a scrape sees it."""

Check = Callable[[], str]
"""Why a part of the work is not done; "" where it is."""

log = structlog.get_logger("fleet.health")


class Health:
    """What one process, called `name`, knows of its own state.

    It is ready when every check returns "". Each check looks at what was done, not at whether a
    socket is open.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.draining = False
        self._checks: dict[str, Check] = {}
        self._facts: dict[str, Callable[[], str]] = {}
        self._was_ready: bool | None = None

    def check(self, part: str, check: Check) -> None:
        """Ask `check` about `part` from now on."""
        self._checks[part] = check

    def tell(self, name: str, fact: Callable[[], str]) -> None:
        """Show a fact beside: whether a bridge leads, what a worker owns."""
        self._facts[name] = fact

    def reasons(self) -> dict[str, str]:
        """Why it is not ready, by part; empty where it is."""
        if self.draining:
            return {"process": "draining"}
        found = {part: check() for part, check in self._checks.items()}
        return {part: reason for part, reason in found.items() if reason}

    def report(self) -> dict[str, Any]:
        """The body of /readyz."""
        reasons = self.reasons()
        status = "draining" if self.draining else "not ready" if reasons else "ready"
        facts = {name: fact() for name, fact in self._facts.items()}
        return {"name": self.name, "status": status, **facts, "reasons": reasons}

    def note(self) -> None:
        """Set the gauge, and log when it has changed."""
        reasons = self.reasons()
        is_ready = not reasons
        metrics.READY.set(is_ready)
        if self._was_ready is not None and is_ready is not self._was_ready:
            if is_ready:
                log.info("ready again")
            elif not self.draining:
                log.warning("not ready", **reasons)
        self._was_ready = is_ready

    async def watch(self) -> None:
        """Look every second, until cancelled, also at how late the loop lets us look."""
        loop, late = asyncio.get_running_loop(), deque([0.0], REMEMBERED)
        while True:
            due = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            late.append(loop.time() - due)
            metrics.LOOP_LAG.set(max(late))
            self.note()


class _Joined(Collector):
    """Several registries on one page."""

    def __init__(self, registries: Sequence[CollectorRegistry]) -> None:
        self._registries = registries

    def collect(self) -> Iterator[Metric]:
        for registry in self._registries:
            yield from registry.collect()


@asynccontextmanager
async def served(
    settings: HealthSettings, health: Health, *registries: CollectorRegistry
) -> AsyncIterator[None]:
    """Serve the health of this process, and its metrics, while inside.

    The server runs in the loop that does the work: where a handler blocks that, /livez does not
    answer, and that is the sign. Raises SettingsError where the address is not to be had.
    """
    watching = asyncio.create_task(health.watch())
    try:
        if not settings.health_port:
            yield
            return
        async with _listening(settings, health, registries or (metrics.REGISTRY,)):
            yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@asynccontextmanager
async def _listening(
    settings: HealthSettings, health: Health, registries: tuple[CollectorRegistry, ...]
) -> AsyncIterator[None]:
    page = CollectorRegistry()
    page.register(_Joined(registries))

    def livez(_: str) -> Answer:
        return _as_json({"name": health.name, "status": "alive"})

    def readyz(_: str) -> Answer:
        report = health.report()
        is_ready = not report["reasons"]
        return _as_json(report, HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE)

    def shown(accept: str) -> Answer:
        encode, kind = choose_encoder(accept)
        return Answer(HTTPStatus.OK, kind, encode(page))

    pages = {"/livez": livez, "/readyz": readyz, "/metrics": shown}
    where = f"{settings.health_host}:{settings.health_port}"
    async with AsyncExitStack() as stack:
        try:
            serving = listening(settings.health_host, settings.health_port, pages)
            await stack.enter_async_context(serving)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise SettingsError(
                f"Cannot listen at {where} ({reason}); correct HEALTH_HOST or HEALTH_PORT."
            ) from None
        log.info("health served", at=where)
        yield


def _as_json(content: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return Answer(status, "application/json; charset=utf-8", json.dumps(content).encode())
