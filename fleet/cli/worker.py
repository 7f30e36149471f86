"""`fleet worker`: one replica, or several on one machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from typing import Final

import click
import uvloop

from agent.settings import trade_on_paper
from fleet.cli.load import load_service
from fleet.cli.options import of_service
from fleet.cli.tracing import traced_worker
from fleet.core.errors import ResourceError, SettingsError
from fleet.doctor import start as at_start
from fleet.settings import inherited, load
from fleet.store import StoreSettings, open_store
from fleet.store.factory import folder_of
from fleet.telemetry import log as logs
from fleet.telemetry.health import served
from fleet.telemetry.settings import HealthSettings, LogSettings
from workers.kept import Keeper
from workers.procs import Command, Procs
from workers.registry import Service
from workers.settings import WorkerSettings
from workers.watch import MB, bounds

START_ANEW: Final = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong that a new start does not mend."""
PORTS: Final = 65_535


@click.command()
@of_service("The service to run.")
@click.option("--name", default=None, help="The worker's name in logs, headers and the journal.")
@click.option("--paper", is_flag=True, help="The trading agent's orders are on paper only.")
@click.option(
    "--procs",
    type=click.IntRange(0, 256),
    default=1,
    show_default=True,
    help="Worker processes on this machine; 0: as many as it has cores.",
)
@click.option("--log-json", is_flag=True, help="Write log lines as JSON objects.")
@click.option("--kept", is_flag=True, hidden=True, help="A supervisor is at standard input.")
def command(
    handlers: str, name: str | None, procs: int, *, paper: bool, log_json: bool, kept: bool
) -> None:
    """Run one worker replica, until SIGTERM or SIGINT; start as many as you like.

    With --procs it starts several, each a process named WORKER_NAME-1, -2 and so on, starts those
    anew that end, and serves at HEALTH_PORT whether all are ready; each has the next ports to
    itself. AMQP_URL, STORE_URL, PREFETCH, LANE_PREFETCH, CONCURRENCY and GRACE_S have defaults.
    """
    logs.configure_from(load(LogSettings), json=log_json)
    settings = load(WorkerSettings, **({"worker_name": name} if name else {}))
    keeper = Keeper(settings.grace_s) if kept else None
    if paper:
        trade_on_paper()
    service = load_service(handlers)
    if not isinstance(service, Service):
        raise SettingsError(f"{handlers} has a layout but no handlers; it cannot be worked for.")
    health = load(HealthSettings)
    count = procs or _cores()
    if count > 1:
        flags = [*(["--paper"] if paper else []), *(["--log-json"] if log_json else [])]
        commands = _commands(count, settings, health, ["--handlers", handlers, *flags])
        sys.exit(asyncio.run(_supervise(commands, settings, health)))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(service, settings, health, keeper))
    except ResourceError as error:
        click.echo(f"fleet: {error}", err=True)
        sys.exit(START_ANEW)


async def _run(
    service: Service, settings: WorkerSettings, health: HealthSettings, keeper: Keeper | None
) -> None:
    stop = _stop()
    url = load(StoreSettings).url
    store = open_store(url)
    await store.open()
    try:
        await at_start.look(settings.amqp_url, store, url)
        async with (
            traced_worker(service, settings, store, folder_of(url)) as worker,
            served(health, worker.health),
            AsyncExitStack() as stack,
        ):
            if keeper is not None:
                telling = asyncio.create_task(keeper.tell(worker.health))
                stack.callback(telling.cancel)
            await worker.run(stop)
    finally:
        await store.close()


async def _supervise(
    commands: list[Command], settings: WorkerSettings, health: HealthSettings
) -> int:
    stop = _stop()
    procs = Procs(settings.worker_name, commands, settings.grace_s)
    async with served(health, procs.health):
        return await procs.run(stop)


def _cores() -> int:
    """The cores that this process may use, where the system tells; else those that there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _stop() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _commands(
    count: int, settings: WorkerSettings, health: HealthSettings, options: list[str]
) -> list[Command]:
    """A command for each process; what one process alone may take is divided among them."""
    port = health.health_port
    if port + count > PORTS:
        raise SettingsError(f"HEALTH_PORT is wrong: the {count} ports after it are needed as well.")
    memory = settings.watch_memory_mb or max(1, bounds(settings, None).memory // count // MB)
    commands = []
    for number in range(1, count + 1):
        name = f"{settings.worker_name}-{number}"
        line = [sys.executable, "-m", "fleet", "worker", "--kept", "--name", name, *options]
        more = {"WATCH_MEMORY_MB": str(memory), "HEALTH_PORT": str(port and port + number)}
        commands.append(Command(name, line, inherited() | more))
    return commands
