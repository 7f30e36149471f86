"""`replay-failed run`: sends failed messages home."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import Progress

from fleet import clock
from fleet.amqp.harvest import Held
from fleet.cli import failed_options, failed_shown
from fleet.cli.failed_options import Where, at_queue, selecting
from fleet.cli.options import as_json
from fleet.core.errors import SettingsError
from fleet.settings import SigningSettings, load
from replay.canary import run_in_steps
from replay.edit import mended, set_fields
from replay.entry import Entry
from replay.place import Place
from replay.plan import Plan, read_plan
from replay.planning import make_plan
from replay.report import Report
from replay.run import Runner
from replay.selection import Selection
from replay.sending import Edit, open_publisher
from replay.verdict import Judge
from topology import names

INTERRUPTED: Final = 130
MOST_BODIES: Final = 50
"""Messages of one id that are shown, or looked through for an edit."""


@click.command()
@click.argument("plan_file", required=False, type=click.Path(path_type=Path), metavar="[PLAN]")
@selecting
@at_queue
@failed_options.limit
@failed_options.stale
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Messages a second.")
@click.option("--canary", is_flag=True, help="1, 5, 5 %, all; stop where they fail again.")
@click.option("--canary-ratio", type=click.FloatRange(0, 1), default=0.2, show_default=True)
@click.option("--canary-wait", type=click.FloatRange(min=0), default=60.0, show_default=True)
@click.option("--set", "changes", multiple=True, metavar="PATH=VALUE", help="payload.size_usdc=10")
@click.option("--edit", "editor", is_flag=True, help="Open the one selected body in $EDITOR.")
@click.option("--note", default="", help="The reason; an edit must have one.")
@failed_options.dry_run
@failed_options.yes
@as_json
@click.pass_context
def run(
    ctx: click.Context,
    /,
    plan_file: Path | None,
    handlers: str,
    by: str | None,
    *,
    unrouted: bool,
    as_json: bool,
    dry_run: bool,
    yes: bool,
    **options: Any,
) -> None:
    """Send messages home, to the one queue where they failed: those of PLAN, or the selected.

    Exit code 0 where all that was planned is home, 1 where something stayed, 130 after Ctrl-C.
    A run that was stopped or killed can be run again; a second run of a plan does nothing.
    """
    frozen = _read(plan_file, options) if plan_file else None
    where = Where(handlers, by, unrouted=unrouted or _is_unrouted(frozen))
    how = {name: options.pop(name) for name in _HOW}
    edit = _edit(where, how, options, frozen)
    made = frozen or make(where, dict(options), edit)
    _check(made, where)
    options["even_if_stale"] |= made.even_if_stale
    if dry_run:
        show_plan(made, as_json=as_json)
        return
    judge = where.judge(even_if_stale=options["even_if_stale"])
    changes = ("changes", "editor")
    sending = {name: value for name, value in how.items() if name not in changes}
    ctx.exit(
        conclude(
            made,
            lambda: execute(where, made, judge, edit=edit, **sending),
            yes=yes,
            as_json=as_json,
        )
    )


_HOW = ("rate", "canary", "canary_ratio", "canary_wait", "changes", "editor", "note")


def conclude(made: Plan, send: Callable[[], Report], *, yes: bool, as_json: bool) -> int:
    """Show the plan, ask, send, report; the exit code."""
    if not as_json:
        failed_shown.summary(made)
    if not made.sent:
        if as_json:
            show_report(Report(refused={each.id: each.why for each in made.items}), as_json=True)
        click.echo("Nothing to send.", err=True)
        return 1 if made.items else 0
    if not yes:
        click.confirm(f"Send {len(made.sent):,} messages home?", abort=True, err=True)
    found = send()
    show_report(found, as_json=as_json)
    return _code(found)


def execute(
    where: Where,
    made: Plan,
    judge: Judge,
    *,
    rate: float | None = None,
    canary: bool = False,
    canary_ratio: float = 0.0,
    canary_wait: float = 0.0,
    edit: Edit | None = None,
    note: str = "",
) -> Report:
    """Run the plan until its end or a stop request."""

    async def task(place: Place, stop: asyncio.Event) -> Report:
        async with open_publisher(place.url) as publisher:
            with _progress(len(made.sent)) as progress:
                runner = Runner(
                    place,
                    judge,
                    publisher,
                    rate=rate or 0,
                    stop=stop,
                    edit=edit,
                    note=note,
                    progress=progress,
                    keys=load(SigningSettings).keys(),
                )
                if canary:
                    await run_in_steps(
                        runner, place, made, ratio=canary_ratio, wait_s=canary_wait, stop=stop
                    )
                else:
                    await runner.run(made.sent)
        return runner.report

    return where.work(task)


def make(where: Where, options: dict[str, Any], edit: Edit | None = None) -> Plan:
    """The plan for what the options select."""
    most, stale = options.pop("limit") or 0, options.pop("even_if_stale")
    judge = where.judge(even_if_stale=stale)
    chosen = failed_options.selection(options)

    async def task(place: Place, _stop: asyncio.Event) -> Plan:
        return await make_plan(place, judge, chosen, limit=most, edit=edit)

    return where.work(task)


def _edit(
    where: Where, how: dict[str, Any], options: dict[str, Any], frozen: Plan | None
) -> Edit | None:
    """What an edit makes of a body; None where none is asked for."""
    changes: Sequence[str] = how["changes"]
    if not changes and not how["editor"]:
        return None
    if frozen is not None:
        raise SettingsError("A plan is run as it was reviewed; edit by --id instead.")
    if not how["note"]:
        raise SettingsError("An edit must say why: add --note.")
    if not how["editor"]:
        return lambda body: mended(body, set_fields(body, changes), where.service, clock.now_ms())
    chosen = failed_options.selection(dict(options))
    found = where.work(lambda place, _: bodies(place, chosen))
    if len({entry.digest for entry, _ in found}) != 1:
        raise SettingsError(f"--edit is for one message; {len(found)} are selected.")
    old = set_fields(found[0][1].body, changes) if changes else found[0][1].body
    try:
        text = click.edit(old.decode("utf-8", "replace"), extension=".json")
    except click.ClickException as error:
        raise SettingsError(f"{error.message}; correct $EDITOR. Nothing was sent.") from None
    if text is None:
        raise SettingsError("The editor was left without saving; nothing was sent.")
    new = text.strip().encode()
    return lambda body: mended(body, new, where.service, clock.now_ms())


async def bodies(place: Place, chosen: Selection) -> list[tuple[Entry, Held]]:
    """What is selected, with its bodies: the first few."""
    found: list[tuple[Entry, Held]] = []

    def seen(entry: Entry, held: Held) -> bool:
        if chosen.matches(entry, held.body):
            found.append((entry, held))
        return len(found) < MOST_BODIES

    await place.look(seen)
    return found


def _read(path: Path, options: dict[str, Any]) -> Plan:
    if failed_options.selection(dict(options)) != Selection() or options["limit"]:
        raise SettingsError("A plan is run as it was reviewed; leave the selecting options out.")
    try:
        return read_plan(path.read_bytes(), path.name)
    except OSError as error:
        raise SettingsError(f"Cannot read {path}: {error.strerror}.") from None


def _is_unrouted(frozen: Plan | None) -> bool:
    return frozen is not None and frozen.queue == names.UNROUTED


def _check(made: Plan, where: Where) -> None:
    if (made.service, made.queue) != (where.service.name, where.queue):
        raise SettingsError(
            f"The plan is for {made.queue} of {made.service}; name that service by --handlers."
        )


def show_report(found: Report, *, as_json: bool) -> None:
    """Say what a run did."""
    if as_json:
        failed_shown.say_json(found)
    else:
        failed_shown.report(found)


def show_plan(made: Plan, *, as_json: bool) -> None:
    """Say what a run would do."""
    if as_json:
        failed_shown.say_json(made)
    else:
        failed_shown.summary(made)


def _code(found: Report) -> int:
    if found.stopped == "interrupted":
        return INTERRUPTED
    return 0 if found.is_complete else 1


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    """A bar on stderr, where somebody sees it."""
    err = Console(stderr=True)
    if not err.is_terminal:
        yield lambda _: None
        return
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("sent home", total=total)
        yield lambda count: bar.advance(task, count)
