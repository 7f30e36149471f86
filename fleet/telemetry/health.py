"""Whether a process does its work: /livez, /readyz and /metrics on a small server in its loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from fleet.core.errors import SettingsError
from fleet.telemetry import metrics
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
    from aiohttp import web  # noqa: PLC0415 - 10 MB that a process without a port does not need

    page = CollectorRegistry()
    page.register(_Joined(registries))

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"name": health.name, "status": "alive"})

    async def readyz(_: web.Request) -> web.Response:
        report = health.report()
        return web.json_response(report, status=503 if report["reasons"] else 200)

    async def shown(request: web.Request) -> web.Response:
        encode, kind = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(page), headers={"Content-Type": kind})

    app = web.Application()
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", shown)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        where = f"{settings.health_host}:{settings.health_port}"
        site = web.TCPSite(runner, settings.health_host, settings.health_port)
        try:
            await site.start()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise SettingsError(
                f"Cannot listen at {where} ({reason}); correct HEALTH_HOST or HEALTH_PORT."
            ) from None
        log.info("health served", at=where)
        yield
    finally:
        await runner.cleanup()
