"""`fleet exporter`: what is true of the fleet as a whole, for Prometheus."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Final

import click

from fleet.audit.auditor import Subject
from fleet.cli.audit import subject, unacked
from fleet.cli.options import of_services
from fleet.exporter.rounds import Exporter
from fleet.exporter.settings import ExporterSettings
from fleet.settings import load
from fleet.store import StoreSettings, open_store
from fleet.store.watched import Watched
from fleet.telemetry import log as logs
from fleet.telemetry import metrics
from fleet.telemetry.health import served
from fleet.telemetry.settings import HealthSettings, LogSettings
from topology.settings import TopologySettings

PORT: Final = 9464
"""Where HEALTH_PORT says nothing: an exporter that serves nothing would be of no use."""


@click.command()
@of_services("The services to tell of.")
def command(handlers: str) -> None:
    """Serve what is true of the whole fleet, until SIGTERM or SIGINT; one process is enough.

    Depths and consumers of queues, what failed and for how long, retries that wait, effects,
    positions, the leading bridge, and every quarter of an hour an audit. Listens at HEALTH_HOST
    and HEALTH_PORT (9464). EXPORTER_EVERY_S and EXPORTER_AUDIT_EVERY_S have defaults.
    """
    logs.configure_from(load(LogSettings))
    subjects = [subject(each) for each in handlers.split(",")]
    asyncio.run(_run(subjects, load(ExporterSettings), load(HealthSettings)))


async def _run(
    subjects: Sequence[Subject], settings: ExporterSettings, health: HealthSettings
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    place = load(TopologySettings)
    store = Watched(open_store(load(StoreSettings).url, create=False))
    await store.open()
    try:
        exporter = Exporter(place.amqp_url, store, subjects, settings, unacked=unacked(place))
        health = health.model_copy(update={"health_port": health.health_port or PORT})
        async with served(health, exporter.health, metrics.REGISTRY, metrics.FLEET):
            await _until(stop, exporter)
    finally:
        await store.close()


async def _until(stop: asyncio.Event, exporter: Exporter) -> None:
    """Run until a stop request; raise what ended the exporter."""
    work = [asyncio.create_task(exporter.run()), asyncio.create_task(stop.wait())]
    done, pending = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
    for each in pending:
        each.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for each in done:
        each.result()
