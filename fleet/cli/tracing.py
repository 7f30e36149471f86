"""Tracing for a process of the command line: all of it, or nothing that costs anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fleet.settings import load
from fleet.store.api import Store
from fleet.telemetry.settings import TracingSettings
from fleet.telemetry.tracing import open_spans
from publisher.outbox import Traces
from workers.registry import Service
from workers.settings import WorkerSettings
from workers.worker import Worker


@asynccontextmanager
async def traced_worker(
    service: Service, settings: WorkerSettings, store: Store, folder: Path | None
) -> AsyncIterator[Worker]:
    """A worker, its store in `folder`; with spans around handlers where traces are asked for."""
    spans = open_spans(load(TracingSettings), "worker", settings.worker_name)
    if spans is None:
        yield Worker(service, settings, store, store_folder=folder)
        return
    from workers.middleware.tracing import Tracing  # noqa: PLC0415 - needs the extra

    tracing = Tracing(spans, service.name)
    async with _closed(spans.close):
        yield Worker(
            service, settings, store, [tracing], store_folder=folder, settled=tracing.settled
        )


@asynccontextmanager
async def bridge_traces(name: str) -> AsyncIterator[Traces | None]:
    """What a bridge tells of its postings, where traces are asked for."""
    spans = open_spans(load(TracingSettings), "bridge", name)
    if spans is None:
        yield None
        return
    from publisher.tracing import Tracing  # noqa: PLC0415 - needs the extra

    async with _closed(spans.close):
        yield Tracing(spans)


@asynccontextmanager
async def _closed(close: Callable[[], None]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await asyncio.to_thread(close)
