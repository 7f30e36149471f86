"""`fleet failed` and `replay-failed`: what stands in a failed queue, and its way home."""

from __future__ import annotations

import asyncio
from bisect import insort
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import click

from fleet import clock
from fleet.amqp.harvest import Held
from fleet.cli import failed_keep, failed_options, failed_run, failed_shown
from fleet.cli.failed_options import Where, at_queue, selecting
from fleet.cli.failed_run import bodies, make, show_plan
from fleet.cli.main import run
from fleet.cli.options import as_json
from fleet.core.errors import SettingsError
from fleet.store import archive
from replay.entry import Entry
from replay.groups import Groups
from replay.place import Place
from replay.plan import write_plan
from replay.selection import Selection

PAGE = 50
_id = attrgetter("id")


@click.group(invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """See why messages failed, and send them home, archive them or bring them back.

    Nothing is lost on the way: a message leaves the queue only once the broker has confirmed it
    elsewhere, or its archive row is committed. Without a command: `list`.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@command.command("list")
@selecting
@at_queue
@click.option("--each", is_flag=True, help="Messages instead of groups, by id, a page of --limit.")
@click.option("--after", default="", metavar="ID", help="With --each: the page after this id.")
@failed_options.limit
@as_json
def list_(
    handlers: str, by: str | None, *, unrouted: bool, as_json: bool, each: bool, **options: Any
) -> None:
    """Group what waits by error, class, type and handler; changes nothing."""
    where = Where(handlers, by, unrouted=unrouted)
    most, after = options.pop("limit") or PAGE, options.pop("after")
    chosen = failed_options.selection(options)
    grouped, page = Groups(), list[Entry]()
    matched = 0

    def seen(entry: Entry, held: Held) -> bool:
        nonlocal matched
        if chosen.matches(entry, held.body):
            matched += 1
            grouped.add(entry)
            if each and entry.id > after:
                insort(page, entry, key=_id)
                del page[most:]
        return True

    total = where.work(lambda place, _: place.look(seen))
    found = grouped.largest_first()
    if as_json:
        shown = {"messages": page} if each else {"groups": found}
        failed_shown.say_json(
            {"queue": where.queue, "waiting": total, "selected": matched, **shown}
        )
    elif each:
        failed_shown.messages(page)
    else:
        failed_shown.groups(where.queue, total, found)


@command.command()
@click.argument("message_id", metavar="ID")
@at_queue
@as_json
@click.pass_context
def show(
    ctx: click.Context,
    message_id: str,
    handlers: str,
    by: str | None,
    *,
    unrouted: bool,
    as_json: bool,
) -> None:
    """Print a message's body, headers and history, and what a replay would do.

    Exit code 1 where no such message waits.
    """
    where = Where(handlers, by, unrouted=unrouted)
    judge = where.judge()

    async def task(place: Place, _stop: asyncio.Event) -> list[dict[str, Any]]:
        found = await bodies(place, Selection(ids=(message_id,)))
        readings = [judge.read(entry, held.body, clock.now_ms()) for entry, held in found]
        known = await place.know(judge, readings)
        done = await place.store.read(partial(archive.interventions, message_id=message_id))
        return [
            {
                "entry": entry,
                "verdict": judge.judge(reading, known),
                "headers": dict(held.headers),
                "body": held.body,
                "done": done,
            }
            for (entry, held), reading in zip(found, readings, strict=True)
        ]

    messages = where.work(task)
    for each in messages if not as_json else ():
        failed_shown.detail(each["entry"], each["verdict"], each["headers"], each["body"])
        failed_shown.done(each["done"])
    if as_json:
        failed_shown.say_json([_printable(each) for each in messages])
    if not messages:
        click.echo(f"{message_id} does not wait in {where.queue}.", err=True)
        ctx.exit(1)


@command.command()
@selecting
@at_queue
@failed_options.limit
@failed_options.stale
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File."
)
@as_json
def plan(
    handlers: str, by: str | None, output: Path, *, unrouted: bool, as_json: bool, **options: Any
) -> None:
    """Freeze which messages a run is about, with their digests and predicted outcomes."""
    where = Where(handlers, by, unrouted=unrouted)
    made = make(where, options)
    try:
        output.write_bytes(write_plan(made))
    except OSError as error:
        raise SettingsError(f"Cannot write {output}: {error.strerror}.") from None
    show_plan(made, as_json=as_json)


def _printable(message: dict[str, Any]) -> dict[str, Any]:
    verdict = message["verdict"]
    return {
        **message,
        "verdict": {"outcome": verdict.outcome, "why": verdict.why},
        "headers": archive.plain(message["headers"]),
        "body": message["body"].decode("utf-8", "replace"),
    }


failed_keep.add_to(command)
command.add_command(failed_run.run)


def main() -> None:
    """Run `replay-failed`; an operator's error is one sentence and exit code 2."""
    run("replay-failed", lambda: command)


if __name__ == "__main__":
    main()
