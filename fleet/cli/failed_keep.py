"""The commands that archive failed messages and bring them back."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import IO, Any

import click
import msgspec

from fleet import clock
from fleet.amqp.harvest import Held
from fleet.backlog import WARN_ABOVE, read_backlogs
from fleet.cli import failed_options, failed_shown
from fleet.cli.failed_options import Where, at_queue, selecting
from fleet.cli.options import as_json
from fleet.core.errors import SettingsError, TopologyError
from fleet.store import archive
from replay import keeping
from replay.entry import Entry
from replay.place import Place
from replay.selection import Selection
from replay.sending import open_publisher


def add_to(group: click.Group) -> None:
    """Give the group these commands."""
    for each in (resolve, restore, archived, export, import_, backlog):
        group.add_command(each)


@click.command()
@click.argument("message_ids", nargs=-1, metavar="[ID]…")
@selecting
@at_queue
@failed_options.limit
@click.option("--note", required=True, help="Why nobody needs to do anything more.")
@failed_options.dry_run
@failed_options.yes
@as_json
@click.pass_context
def resolve(
    ctx: click.Context,
    /,
    message_ids: tuple[str, ...],
    handlers: str,
    by: str | None,
    note: str,
    *,
    unrouted: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Archive messages, with the note, and then take them off the queue.

    Exit code 1 where none of them waits.
    """
    where = Where(handlers, by, unrouted=unrouted)
    most = options.pop("limit") or 0
    options["of_id"] = (*options["of_id"], *message_ids)
    chosen = failed_options.selection(options)
    found = _count(where, chosen, most)
    if dry_run or not found:
        if not found:
            click.echo(f"None of them waits in {where.queue}.", err=True)
        _tell({"resolved": 0, "would_resolve": found}, as_json=as_json)
        ctx.exit(0 if found else 1)
    if not yes and not message_ids:
        click.confirm(f"Archive {found:,} messages?", abort=True, err=True)
    ids = where.work(lambda place, _: keeping.resolve(place, chosen, note, most))
    _tell({"resolved": len(ids), "ids": ids}, as_json=as_json)


@click.command()
@click.argument("message_ids", nargs=-1, required=True, metavar="ID…")
@at_queue
@click.option("--note", default="", help="Why.")
@as_json
@click.pass_context
def restore(
    ctx: click.Context,
    message_ids: tuple[str, ...],
    handlers: str,
    by: str | None,
    note: str,
    *,
    unrouted: bool,
    as_json: bool,
) -> None:
    """Bring archived messages back into their queue. Exit code 1 where none is archived."""
    where = Where(handlers, by, unrouted=unrouted)

    async def task(place: Place, _stop: asyncio.Event) -> list[str]:
        async with open_publisher(place.url) as publisher:
            return await keeping.restore(place, publisher, message_ids, note)

    ids = where.work(task)
    if not ids:
        click.echo("None of them is archived, or they were brought back before.", err=True)
    _tell({"restored": len(ids), "ids": ids}, as_json=as_json)
    ctx.exit(0 if ids else 1)


@click.command("archive")
@at_queue
@failed_options.limit
@click.option("--skip", type=click.IntRange(min=0), default=0, help="Begin after so many.")
@as_json
def archived(
    handlers: str,
    by: str | None,
    limit: int | None,
    skip: int,
    *,
    unrouted: bool,
    as_json: bool,
) -> None:
    """List what was resolved and can be restored, newest first."""
    where = Where(handlers, by, unrouted=unrouted)
    query = partial(archive.find, limit=limit or archive.PAGE, skip=skip)
    found = where.work(lambda place, _: place.store.read(query))
    if as_json:
        failed_shown.say_json([_without_body(each) for each in found])
    else:
        failed_shown.archive(found)


@click.command()
@selecting
@at_queue
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="[stdout]")
def export(
    handlers: str, by: str | None, output: Path | None, *, unrouted: bool, **options: Any
) -> None:
    """Write messages as lines of JSON; they stay where they are."""
    where = Where(handlers, by, unrouted=unrouted)
    chosen = failed_options.selection(options)

    def into(file: IO[bytes]) -> int:
        return where.work(lambda place, _: keeping.export(place, chosen, file.write))

    if output is None:
        into(sys.stdout.buffer)
        return
    try:
        with output.open("wb") as file:
            count = into(file)
    except OSError as error:
        raise SettingsError(f"Cannot write {output}: {error.strerror}.") from None
    click.echo(f"{count:,} messages in {output}; the queue keeps them.", err=True)


@click.command("import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@at_queue
@as_json
def import_(file: Path, handlers: str, by: str | None, *, unrouted: bool, as_json: bool) -> None:
    """Put the messages of an export into their queue, but for those that wait there."""
    where = Where(handlers, by, unrouted=unrouted)

    async def task(place: Place, _stop: asyncio.Event) -> tuple[int, int]:
        with file.open("rb") as source:
            async with open_publisher(place.url) as publisher:
                return await keeping.bring_in(place, publisher, source)

    try:
        added, skipped = where.work(task)
    except OSError as error:
        raise SettingsError(f"Cannot read {file}: {error.strerror}.") from None
    _tell({"imported": added, "there_already": skipped}, as_json=as_json)


@click.command()
@at_queue
@click.option("--warn-above", type=click.IntRange(min=0), default=WARN_ABOVE, show_default=True)
@as_json
@click.pass_context
def backlog(
    ctx: click.Context,
    handlers: str,
    by: str | None,
    warn_above: int,
    *,
    unrouted: bool,
    as_json: bool,
) -> None:
    """Say how many wait and how long the oldest does, without a look at any; for alarms.

    Exit code 1 where more than --warn-above wait.
    """
    if unrouted:
        raise SettingsError("The backlog is a service's; leave --unrouted out.")
    where = Where(handlers, by, unrouted=False)
    backlogs = where.work(
        lambda place, _: read_backlogs(place.url, place.store, [place.service.name])
    )
    if not backlogs:
        raise TopologyError(f"There is no queue {where.queue}; run `fleet topology apply` first.")
    found = backlogs[0]
    age = round(found.age_s(clock.now_ms()))
    if as_json:
        failed_shown.say_json({**msgspec.structs.asdict(found), "oldest_age_s": age})
    else:
        since = f"the oldest for {age:,} s" if found.oldest_ms else "the journal has no time"
        click.echo(f"{found.depth:,} wait in {where.queue}{f'; {since}' if found.depth else ''}.")
    ctx.exit(1 if found.is_above(warn_above) else 0)


def _count(where: Where, chosen: Selection, most: int) -> int:
    found = 0

    def seen(entry: Entry, held: Held) -> bool:
        nonlocal found
        found += chosen.matches(entry, held.body)
        return not most or found < most

    where.work(lambda place, _: place.look(seen))
    return found


def _tell(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        failed_shown.say_json(result)
        return
    for what, value in result.items():
        if isinstance(value, int):
            click.echo(f"{value:,} {what.replace('_', ' ')}")


def _without_body(entry: archive.Archived) -> dict[str, Any]:
    fields = msgspec.structs.asdict(entry)
    fields["body"] = entry.body.decode("utf-8", "replace")
    return fields
