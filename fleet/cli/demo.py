"""`fleet demo`: the whole fleet at work on one machine."""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import click
import uvloop
from rich.console import Console

from fleet.broker import BrokerSettings, provide
from fleet.broker.guarded import Guard
from fleet.cli.audit import subject
from fleet.cli.options import as_json
from fleet.core.errors import FleetError, OperatorError, SettingsError
from fleet.demo.options import SPEED, Options
from fleet.demo.place import place
from fleet.demo.progress import Show
from fleet.demo.story import Demo, Ending
from fleet.demo.summary import figures, tell, tell_missing
from fleet.settings import load
from sandbox.faults import Faults
from topology.plan import plan

INTERRUPTED: Final = 130
TOLD: Final = 5
STOPS: Final = (signal.SIGINT, signal.SIGTERM)


def _threshold(_ctx: click.Context, _option: click.Parameter, text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        threshold = Decimal(text)
    except InvalidOperation:
        threshold = Decimal(0)
    if not (threshold.is_finite() and 0 < threshold < 1):
        raise click.BadParameter(f"{text!r} is no fraction between 0 and 1, like 0.003.")
    return threshold


def _speed(_ctx: click.Context, _option: click.Parameter, text: str) -> str:
    try:
        speed = float(text) if text != "max" else 1.0
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise click.BadParameter(f"{text!r} is neither a number above 0 nor max.")
    return text


def _faults(_ctx: click.Context, _option: click.Parameter, text: str) -> str:
    try:
        Faults.parse(text, 0)
    except SettingsError as error:
        raise click.BadParameter(str(error)) from None
    return text


@click.command()
@click.option(
    "--trades",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Play this tape (csv or csv.gz: ts_ms,pair,price,qty) instead of a made-up market.",
)
@click.option(
    "--speed",
    default=SPEED,
    show_default=True,
    callback=_speed,
    help="Times as fast as the tape, or max.",
)
@click.option("--workers", type=click.IntRange(1, 64), default=3, show_default=True)
@click.option("--events", type=click.IntRange(1), help="End the feed after this many trades.")
@click.option("--threshold", callback=_threshold, help="The move that makes the agent trade.")
@click.option("--strict-tape", is_flag=True, help="Refuse a tape with a bad line.")
@click.option("--kill", is_flag=True, help="kill -9 a worker and the bridge midway.")
@click.option(
    "--venue-faults",
    default="",
    metavar="FAULTS",
    callback=_faults,
    help="What goes wrong at the venue: errors=0.3,latency=500ms,timeouts=0.05,lost_answers=0.05.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of all that is made up.")
@click.option(
    "--handlers",
    default="agent.handlers:service",
    show_default=True,
    metavar="MODULE:NAME",
    help="The service that works.",
)
@as_json
@click.pass_context
def command(ctx: click.Context, /, *, as_json: bool, **options: Any) -> None:
    """Show the whole fleet at work: a stream, the bridge, workers, orders, and the reckoning.

    Exit code 0 only if every event is accounted for and no order was placed twice.
    """
    for number in STOPS:
        signal.signal(number, _interrupt)
    try:
        ending = _play(Options(**options))
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("fleet: Interrupted; everything that was started is stopped.", err=True)
        ctx.exit(INTERRUPTED)
    except OperatorError:
        raise
    except FleetError as error:
        click.echo(f"fleet: {error}", err=True)
        ctx.exit(1)
    if as_json:
        click.echo(json.dumps(figures(ending)))
    else:
        tell(ending, Console(highlight=False))
    tell_missing(ending, Console(stderr=True, highlight=False))
    ctx.exit(0 if ending.is_proven else 1)


def _play(options: Options) -> Ending:
    who = subject(options.handlers)
    total = options.ticks(_Complaints())
    folder = Path(tempfile.mkdtemp(prefix="fleet-demo-"))
    # Not a clean-up of our own: it has to happen after kill -9 too.
    cleaner, kept = Guard(remove=folder), False
    try:
        with Show(total) as show, provide(load(BrokerSettings), say=show.say) as broker:
            show.say(f"RabbitMQ {broker.version} ({broker.kind}) is ready.")
            with place(broker, plan([who.layout]), show.say) as amqp_url:
                ending = _run(Demo(options, who, amqp_url, folder, show))
        kept = not ending.is_proven
    except FleetError:
        kept = any(folder.glob("*.log"))
        raise
    finally:
        if kept:
            click.echo(f"The logs of all processes are in {folder}.", err=True)
        cleaner.end(keep=kept)
    return ending


class _Complaints:
    """Says the first bad lines of a tape; the closing report says how many there were."""

    def __init__(self) -> None:
        self._left = TOLD

    def __call__(self, complaint: str) -> None:
        self._left -= 1
        if self._left >= 0:
            click.echo(complaint, err=True)
        elif self._left == -1:
            click.echo("… and more bad lines.", err=True)


def _run(demo: Demo) -> Ending:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_stoppable(demo))


async def _stoppable(demo: Demo) -> Ending:
    loop, playing = asyncio.get_running_loop(), asyncio.create_task(demo.play())
    for number in STOPS:
        loop.add_signal_handler(number, playing.cancel)
    return await playing


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - signal's
    raise KeyboardInterrupt
