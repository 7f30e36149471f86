"""`fleet worker`: one replica."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Final

import click
import uvloop

from agent.settings import trade_on_paper
from fleet.cli.load import TOLD_HANDLERS, load_service, told_handlers
from fleet.cli.tracing import traced_worker
from fleet.core.errors import ResourceError, SettingsError
from fleet.settings import load
from fleet.store import StoreSettings, open_store
from fleet.store.factory import folder_of
from fleet.telemetry import log as logs
from fleet.telemetry.health import served
from fleet.telemetry.settings import HealthSettings, LogSettings
from workers.registry import Service
from workers.settings import WorkerSettings

START_ANEW: Final = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong that a new start does not mend."""


@click.command()
@click.option(
    "--handlers",
    default=told_handlers,
    show_default=TOLD_HANDLERS,
    metavar="MODULE:NAME",
    help="The service to run.",
)
@click.option("--name", default=None, help="The worker's name in logs, headers and the journal.")
@click.option("--paper", is_flag=True, help="The trading agent's orders are on paper only.")
@click.option("--log-json", is_flag=True, help="Write log lines as JSON objects.")
def command(handlers: str, name: str | None, *, paper: bool, log_json: bool) -> None:
    """Run one worker replica, until SIGTERM or SIGINT; start as many as you like.

    AMQP_URL, STORE_URL, PREFETCH, LANE_PREFETCH, CONCURRENCY and GRACE_S have defaults.
    """
    logs.configure_from(load(LogSettings), json=log_json)
    settings = load(WorkerSettings)
    if name:
        settings = settings.model_copy(update={"worker_name": name})
    if paper:
        trade_on_paper()
    service = load_service(handlers)
    if not isinstance(service, Service):
        raise SettingsError(f"{handlers} has a layout but no handlers; it cannot be worked for.")
    health = load(HealthSettings)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(service, settings, health))
    except ResourceError as error:
        click.echo(f"fleet: {error}", err=True)
        sys.exit(START_ANEW)


async def _run(service: Service, settings: WorkerSettings, health: HealthSettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    url = load(StoreSettings).url
    store = open_store(url)
    await store.open()
    try:
        async with (
            traced_worker(service, settings, store, folder_of(url)) as worker,
            served(health, worker.health),
        ):
            await worker.run(stop)
    finally:
        await store.close()
