"""`fleet status`: the whole fleet on one screen."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Any

import click
from rich.console import RenderableType
from rich.live import Live

from fleet.cli import failed_shown, status_shown
from fleet.cli.options import as_json
from fleet.settings import load
from fleet.status.gather import Gatherer
from fleet.status.state import State
from fleet.store import StoreSettings
from fleet.telemetry import log as logs
from topology.settings import TopologySettings

once = click.option("--once", is_flag=True, help="Print it once; so it is where no terminal is.")
every = click.option(
    "--every",
    type=click.FloatRange(0.5, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)


@click.command()
@once
@every
@as_json
def command(*, once: bool, every: float, as_json: bool) -> None:
    """Show replicas, queues, failures, effects, positions, modes and pauses, until Ctrl-C.

    A look costs next to nothing and touches no message. What is away says so, and the rest goes on.
    """
    watch(status_shown.screen, lambda state: state, once=once, every=every, as_json=as_json)


def watch(
    show: Callable[[State], RenderableType],
    told: Callable[[State], Any],
    *,
    once: bool,
    every: float,
    as_json: bool,
) -> None:
    """Show the state again and again on a terminal, else once; with `as_json`, what is `told`."""
    logs.configure(level="error")
    asyncio.run(_watch(show, told, once=once, every=every, as_json=as_json))


async def _watch(
    show: Callable[[State], RenderableType],
    told: Callable[[State], Any],
    *,
    once: bool,
    every: float,
    as_json: bool,
) -> None:
    urls = load(StoreSettings).url, load(TopologySettings).amqp_url
    console = failed_shown.console()
    async with Gatherer(*urls) as gatherer:
        state = await gatherer.look()
        if as_json:
            failed_shown.say_json(told(state))
        elif once or not sys.stdout.isatty():  # a console may be told that it is one
            console.print(show(state))
        else:
            stop = _asked()
            with Live(show(state), console=console, screen=True, auto_refresh=False) as live:
                while not await _within(stop, every):
                    live.update(show(await gatherer.look()), refresh=True)


def _asked() -> asyncio.Event:
    """Set by Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _within(stop: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await stop.wait()
    except TimeoutError:
        return False
