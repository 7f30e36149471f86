"""`fleet effects`: everything done to the world, and an operator's word on what is not known."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final, get_args

import click
import msgspec
from rich.table import Table

from fleet import clock
from fleet.cli import effects_book, failed_options, failed_shown, stored
from fleet.cli.effects_book import handlers
from fleet.cli.failed_options import Where
from fleet.cli.failed_run import conclude, execute, show_plan
from fleet.cli.options import as_json
from fleet.core.errors import SettingsError
from fleet.store import archive, ledger
from fleet.store.api import EffectState
from fleet.store.ledger import Account
from replay.entry import iso
from replay.place import Place
from replay.plan import Plan
from replay.planning import make_plan
from replay.selection import Selection

SECONDS: Final = len("2026-01-01T00:00:00")


@click.group()
def command() -> None:
    """What was done to the world, orders and payments, and an operator's word on it."""


command.add_command(effects_book.close)
command.add_command(effects_book.settle)


@command.command("list")
@click.option("--state", type=click.Choice(get_args(EffectState)), help="Only of this state.")
@click.option("--kind", default="", metavar="TYPE", help="Only of this event type.")
@click.option("--after", default="", metavar="KEY", help="The page after this key.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=ledger.PAGE, show_default=True)
@handlers
@as_json
def list_(handlers: str, *, as_json: bool, **wanted: Any) -> None:
    """A page of effects, by key: state, mode, attempts, first and last time, error, whose word."""
    query = partial(ledger.page, **wanted)
    found = Where(handlers, None, unrouted=False).work(lambda place, _: place.store.read(query))
    if as_json:
        failed_shown.say_json([_plain(each) for each in found])
        return
    titles = ("key", "kind", "state", "mode", "attempts", "first (UTC)", "last (UTC)", "", "error")
    table = Table(*titles)
    for each in found:
        table.add_row(*map(failed_shown.cell, _cells(each)))
    failed_shown.console().print(table)


@command.command()
@click.argument("key")
@handlers
@as_json
def show(key: str, handlers: str, *, as_json: bool) -> None:
    """Print one effect, its request and result, and what operators said of it."""
    found, done = Where(handlers, None, unrouted=False).work(partial(_look, key=key))
    effect = found.effect
    if as_json:
        failed_shown.say_json({"effect": _plain(found), "done": done})
        return
    for name in effect.__struct_fields__:
        value = getattr(effect, name)
        shown = iso(value) if name.endswith("_ms") else str(value)
        click.echo(f"{name:>14}  {failed_shown.safe(shown)}")
    click.echo(f"{'standing':>14}  {failed_shown.safe(_standing(found))}")
    failed_shown.done(done)


def _cells(found: Account) -> tuple[str, ...]:
    effect = found.effect
    times = (iso(ms)[:SECONDS] for ms in (effect.first_ms, effect.at_ms))
    what = (effect.key, effect.kind, effect.state, effect.mode, str(effect.attempts))
    return (*what, *times, _standing(found), effect.error)


def _plain(found: Account) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(found.effect),
        "pending": found.is_pending,
        "resolved": found.resolved,
    }


def _standing(found: Account) -> str:
    if found.resolved is None:
        return "pending" if found.is_pending else ""
    return f"resolved by {found.resolved.operator}: {found.resolved.note}"


async def _look(
    place: Place, _stop: asyncio.Event, key: str
) -> tuple[Account, list[archive.Intervention]]:
    found = await place.store.read(partial(ledger.account, key=key))
    if found is None:
        raise SettingsError(f"There is no effect {key}.")
    return found, await place.store.read(partial(archive.interventions, message_id=key))


@command.command()
@click.argument("key")
@click.option(
    "--as", "ending", required=True, type=click.Choice(get_args(ledger.Ending)), help="It was …"
)
@click.option("--note", required=True, help="How you know.")
@handlers
@stored.by
@as_json
def resolve(key: str, *, as_json: bool, handlers: str, by: str | None, **said: Any) -> None:
    """Say that an effect was done, or failed, where nobody else can know.

    Done is for ever. What is failed is done again by a replay of its event; an order's place in
    the book is free then.
    """
    where = Where(handlers, by, unrouted=False)
    write = partial(ledger.resolve, key=key, operator=where.operator, now_ms=clock.now_ms(), **said)
    effect = where.work(lambda place, _: place.store.run(write))
    if as_json:
        failed_shown.say_json(effect)
    else:
        click.echo(f"{effect.key} is {effect.state}.")


@command.command()
@click.argument("key")
@handlers
@stored.by
@failed_options.stale
@failed_options.dry_run
@failed_options.yes
@as_json
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
