"""`fleet effects`: everything done to the world, and an operator's word on what is not known."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, get_args

import click
from rich.table import Table

from fleet.cli import failed_options, failed_shown
from fleet.cli.failed_options import Where
from fleet.cli.failed_run import conclude, execute, show_plan
from fleet.cli.load import TOLD_HANDLERS, told_handlers
from fleet.core.errors import SettingsError
from fleet.store import archive, effects, ledger
from fleet.store.api import Effect, EffectState
from replay.entry import iso
from replay.place import Place, now_ms
from replay.plan import Plan
from replay.planning import make_plan
from replay.selection import Selection

handlers = click.option(
    "--handlers",
    default=told_handlers,
    show_default=TOLD_HANDLERS,
    metavar="MODULE:NAME",
    help="The service that has them.",
)
by = click.option("--by", metavar="NAME", help="Who acts, as it is written down. [your user]")


@click.group()
def command() -> None:
    """List, show, resolve or retry what was done to the world: orders and payments."""


@command.command("list")
@click.option("--state", type=click.Choice(get_args(EffectState)), help="Only of this state.")
@click.option("--kind", default="", metavar="TYPE", help="Only of this event type.")
@click.option("--after", default="", metavar="KEY", help="The page after this key.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=ledger.PAGE, show_default=True)
@handlers
@failed_options.as_json
def list_(handlers: str, *, as_json: bool, **wanted: Any) -> None:
    """A page of effects, by key: state, attempts, last time, error."""
    query = partial(ledger.page, **wanted)
    found = Where(handlers, None, unrouted=False).work(lambda place, _: place.store.read(query))
    if as_json:
        failed_shown.say_json(found)
        return
    table = Table("key", "kind", "state", "attempts", "last", "error")
    for each in found:
        cells = (each.key, each.kind, each.state, str(each.attempts), iso(each.at_ms), each.error)
        table.add_row(*map(failed_shown.cell, cells))
    failed_shown.console().print(table)


@command.command()
@click.argument("key")
@handlers
@failed_options.as_json
def show(key: str, handlers: str, *, as_json: bool) -> None:
    """Print one effect, its request and result, and what operators said of it."""
    effect, done = Where(handlers, None, unrouted=False).work(partial(_look, key=key))
    if as_json:
        failed_shown.say_json({"effect": effect, "done": done})
        return
    for name in effect.__struct_fields__:
        value = getattr(effect, name)
        shown = iso(value) if name.endswith("_ms") else str(value)
        click.echo(f"{name:>14}  {failed_shown.safe(shown)}")
    failed_shown.done(done)


async def _look(
    place: Place, _stop: asyncio.Event, key: str
) -> tuple[Effect, list[archive.Intervention]]:
    effect = await place.store.read(partial(effects.get, key=key))
    if effect is None:
        raise SettingsError(f"There is no effect {key}.")
    return effect, await place.store.read(partial(archive.interventions, message_id=key))


@command.command()
@click.argument("key")
@click.option(
    "--as", "ending", required=True, type=click.Choice(get_args(ledger.Ending)), help="It was …"
)
@click.option("--note", required=True, help="How you know.")
@handlers
@by
@failed_options.as_json
def resolve(key: str, *, as_json: bool, handlers: str, by: str | None, **said: Any) -> None:
    """Say that an effect was done, or failed, where nobody else can know.

    Done is for ever. What is failed is done again by a replay of its event.
    """
    where = Where(handlers, by, unrouted=False)
    write = partial(ledger.resolve, key=key, operator=where.operator, now_ms=now_ms(), **said)
    effect = where.work(lambda place, _: place.store.run(write))
    if as_json:
        failed_shown.say_json(effect)
    else:
        click.echo(f"{effect.key} is {effect.state}.")


@command.command()
@click.argument("key")
@handlers
@by
@failed_options.stale
@failed_options.dry_run
@failed_options.yes
@failed_options.as_json
@click.pass_context
def retry(
    ctx: click.Context,
    /,
    key: str,
    handlers: str,
    by: str | None,
    *,
    even_if_stale: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Replay the failed events of an effect, under its key; an unknown one asks the venue first."""
    where = Where(handlers, by, unrouted=False)
    judge = where.judge(even_if_stale=even_if_stale)

    async def task(place: Place, _stop: asyncio.Event) -> Plan:
        return await make_plan(place, judge, Selection(), effect_key=key)

    made = where.work(task)
    if not made.items:
        raise SettingsError(f"No event of effect {key} waits in {where.queue}.")
    if dry_run:
        show_plan(made, as_json=as_json)
        return
    found = conclude(made, lambda: execute(where, made, judge), yes=yes, as_json=as_json)
    ctx.exit(found)
