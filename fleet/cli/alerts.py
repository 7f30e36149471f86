"""`fleet alerts`: what a person was told, and an operator's word that it is over."""

from __future__ import annotations

from functools import partial
from typing import Any, get_args

import click
import msgspec
from rich.table import Table

from fleet import clock
from fleet.cli import failed_options, failed_shown, stored
from fleet.cli.options import as_json
from fleet.core.alerts import Severity
from fleet.core.errors import SettingsError
from fleet.store import Tx, alerts
from fleet.store.alerts import Noted, Wanted
from replay.entry import iso
from replay.selection import moment

name = click.option("--name", default="", metavar="NAME", help="Only of this name.")
severity = click.option("--severity", type=click.Choice(get_args(Severity)), help="Only of this.")
agent = click.option("--agent", default="", metavar="NAME", help="Only of this agent.")


@click.group()
def command() -> None:
    """List what a person was told, and resolve what is over. What each means: docs/alerts.md."""


@command.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that are resolved.")
@name
@severity
@agent
@click.option("--since", default="", metavar="TIME", help="30s, 15m, 2h, 1d (ago), or an ISO time.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=alerts.PAGE, show_default=True)
@as_json
def list_(*, everything: bool, since: str, limit: int, as_json: bool, **of: Any) -> None:
    """The open alerts, newest first. The same again within an hour is the same alert."""
    since_ms = moment(since, clock.now_ms()) if since else 0
    wanted = _wanted(of, since_ms=since_ms, everything=everything)
    found = stored.asked(partial(alerts.page, wanted=wanted, limit=limit))
    if as_json:
        failed_shown.say_json([_plain(each) for each in found])
        return
    if not found:
        click.echo("No alert is open." if not everything else "There is no such alert.")
        return
    table = Table()
    for title in ("id", "when", "severity", "name", "detail", "resolved"):
        # A path that is cut short leads nowhere.
        table.add_column(title, overflow="fold")
    for each in found:
        one = each.alert
        cells = (one.event_id, iso(one.at_ms), one.severity, one.name)
        more = (one.detail or one.title, _ending(each))
        table.add_row(*map(failed_shown.cell, (*cells, *more)))
    failed_shown.console().print(table)


@command.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All open ones; with these filters:")
@name
@severity
@agent
@click.option("--note", required=True, help="Why it is over.")
@stored.by
@as_json
def resolve(
    ids: tuple[str, ...], by: str | None, *, everything: bool, note: str, as_json: bool, **of: Any
) -> None:
    """Say that alerts are over: those named by ID, or --all of a name, severity or agent.

    Nothing but the list changes: what an alert is about is not mended by this. What happens again
    within the same hour is the same alert, and is not told anew.
    """
    if bool(ids) == everything or (ids and any(of.values())):
        raise SettingsError("Name the alerts by their ids, or say --all, with filters or without.")
    said: dict[str, Any] = {
        "operator": by or failed_options.user(),
        "note": note,
        "now_ms": clock.now_ms(),
    }
    if everything:
        wanted = _wanted(of)
        done = stored.done(lambda tx: alerts.resolve_all(tx, wanted, **said))
    else:
        done = stored.done(partial(_resolve, ids=ids, said=said))
    if as_json:
        failed_shown.say_json({"resolved": done})
    else:
        click.echo(f"{len(done):,} resolved.")


def _resolve(tx: Tx, ids: tuple[str, ...], said: dict[str, Any]) -> list[str]:
    alerts.resolve(tx, ids, **said)
    return list(dict.fromkeys(ids))


def _wanted(of: dict[str, str | None], *, since_ms: int = 0, everything: bool = False) -> Wanted:
    given = {name: value or "" for name, value in of.items()}
    return Wanted(given["name"], given["severity"], given["agent"], since_ms, everything)


def _plain(each: Noted) -> dict[str, Any]:
    return {**msgspec.structs.asdict(each.alert), "resolved": each.resolved}


def _ending(each: Noted) -> str:
    word = each.resolved
    return f"{iso(word.at_ms)} {word.operator}: {word.note}" if word else ""
