"""Failed messages as a person reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, Literal

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fleet.core.envelope import ERROR_HISTORY
from fleet.store.archive import Archived, Intervention, plain
from replay.entry import Entry, iso
from replay.groups import Group
from replay.plan import Plan
from replay.report import Report
from replay.verdict import Verdict

PIPE_WIDTH: Final = 160
REASONS: Final = 12


def console() -> Console:
    """Where tables go; wide enough for ids where nothing says how wide it is."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def safe(text: str) -> str:
    """The text without what would steer a terminal."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)


def say_json(value: Any) -> None:
    """One JSON value on stdout."""
    click.echo(json.dumps(msgspec.to_builtins(value, str_keys=True), indent=2))


def groups(queue: str, total: int, found: Sequence[Group]) -> None:
    """The groups of a queue."""
    if not found:
        some = f"{total:,} wait in {queue}; none of them is selected."
        click.echo(some if total else f"Nothing waits in {queue}.")
        return
    selected = sum(group.count for group in found)
    table = Table(title=f"{queue}: {total:,} waiting, {selected:,} selected")
    for title in ("count", "class", "error", "type", "handler", "first", "last (UTC)", "again"):
        justify: Literal["left", "right"] = "right" if title in ("count", "again") else "left"
        table.add_column(title, justify=justify, overflow="fold")
    table.add_column("fingerprint", no_wrap=True)
    table.add_column("sample", no_wrap=True)
    for group in found:
        table.add_row(
            f"{group.count:,}",
            cell(group.error_class),
            cell(f"{group.error_type}: {group.error}"[:80]),
            cell(group.type),
            cell(group.handler),
            _short(group.first_ms),
            _short(group.last_ms),
            f"{group.replayed:,}" if group.replayed else "",
            cell(group.fingerprint),
            cell(group.ids[0]),
        )
    console().print(table)


def _short(at_ms: int) -> str:
    """A time for a narrow column: month, day and time."""
    return iso(at_ms)[5:19].replace("T", " ")


def messages(found: Sequence[Entry]) -> None:
    """One line for each message."""
    table = Table("id", "type", "class", "error", "failed", "attempts", "replays")
    for each in found:
        error = cell(f"{each.error_type}: {each.error}"[:80])
        counts = (str(each.attempts), str(each.replays))
        row = (each.id, each.type, each.error_class)
        table.add_row(*map(cell, row), error, iso(each.last_ms), *counts)
    console().print(table)


def detail(entry: Entry, verdict: Verdict, headers: dict[str, Any], body: bytes) -> None:
    """Everything about one message."""
    out = console()
    out.print(f"[bold]{cell(entry.id)}[/]  {cell(entry.type)}  parked by: {entry.by}")
    out.print(f"a replay would: [bold]{verdict.outcome}[/]  {cell(verdict.why)}")
    out.print("\n[bold]history[/]")
    for line in headers.get(ERROR_HISTORY, []):
        out.print(f"  {cell(str(line))}")
    out.print("\n[bold]headers[/]")
    for name, value in sorted(headers.items()):
        if name != ERROR_HISTORY:
            out.print(f"  {cell(name)}: {cell(json.dumps(plain(value)))}")
    out.print(f"\n[bold]body[/] ({entry.size:,} bytes, SHA-256 {entry.digest})")
    out.print(cell(body.decode("utf-8", "replace")))


def done(found: Sequence[Intervention]) -> None:
    """What operators did."""
    for each in found:
        line = f"{iso(each.at_ms)} {each.operator} {each.action} {each.note}"
        console().print(cell(line))


def summary(plan: Plan) -> None:
    """What a run of the plan would do."""
    if not plan.items:
        click.echo(f"Nothing in {plan.queue} is selected.")
        return
    table = Table("would", "why", "count", title=f"{plan.queue}: {len(plan.items):,} selected")
    for outcome, why, count in plan.reasons()[:REASONS]:
        table.add_row(outcome, cell(why), f"{count:,}")
    out = console()
    out.print(table)
    hidden = len(plan.reasons()) - REASONS
    if hidden > 0:
        out.print(f"… and {hidden:,} more reasons: see --json")


def report(found: Report) -> None:
    """What a run did."""
    out = console()
    out.print(f"{found.sent:,} sent home, {found.gone:,} were gone already.")
    for what, why in (("not sent", found.refused), ("left in the queue", found.left)):
        if why:
            out.print(f"{len(why):,} {what}:")
            for name, reason in [*why.items()][:REASONS]:
                out.print(f"  {cell(name)}: {cell(reason)}")
    if found.stopped:
        out.print(f"Stopped: {cell(found.stopped)}. The rest is where it was; run it again.")


def archive(found: Sequence[Archived]) -> None:
    """What is in the archive."""
    table = Table("id", "type", "queue", "when", "by", "note")
    for each in found:
        cells = (each.message_id, each.event_type, each.queue, iso(each.at_ms))
        table.add_row(*map(cell, (*cells, each.operator, each.note)))
    console().print(table)


def cell(text: str) -> str:
    """Text that stands in a table as it is."""
    return escape(safe(text))
