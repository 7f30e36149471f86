"""The fleet's state as a person reads it on a screen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleet.backlog import WARN_ABOVE
from fleet.cli.failed_shown import cell
from fleet.cli.pause import described
from fleet.status.handlers import Line
from fleet.status.state import ServiceState, State
from fleet.store.positions import Position

_STEPS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))
_STATES: Final = {"running": "green", "leading": "green", "standby": "cyan", "draining": "yellow"}
_MODES: Final = {"full": "green", "shutdown": "bold red"}


def screen(state: State) -> RenderableType:
    """Everything, what needs a person first."""
    parts: list[RenderableType] = [_head(state), *_warnings(state)]
    tables = (_replicas, _queues, _groups, _agents, _effects, _positions)
    return Group(*parts, *(table for table in (make(state) for make in tables) if table.row_count))


def top(state: State, lines: Sequence[Line]) -> RenderableType:
    """What each handler does."""
    right = ("workers", "rate/s", "p50", "p99", "failed", "retried", "postponed")
    table = _table("handlers, last half minute", ("service", "handler", *right), right)
    for line in lines:
        name = f"{cell(line.handler)} [bold red]halted[/]" if line.halted else cell(line.handler)
        table.add_row(
            cell(line.service),
            name,
            str(line.workers),
            f"{line.rate:,.1f}",
            _took(line, line.p50_s),
            _took(line, line.p99_s),
            _alarming(line.failed),
            _some(line.retried),
            _some(line.postponed),
        )
    return Group(_head(state), *_troubles(state), table)


def ago(now_ms: int, then_ms: int) -> str:
    """How long ago, in its largest unit."""
    return span((now_ms - then_ms) / 1000)


def span(seconds: float) -> str:
    """Seconds in words: 0.3 s, 12 s, 5 min, 3 h, 2 d."""
    seconds = max(0.0, seconds)
    for size, unit in _STEPS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 or not seconds else f"{seconds:.1f} s"  # noqa: PLR2004 - two digits


def _head(state: State) -> Text:
    live = [each for each in state.replicas if each.is_live(state.at_ms)]
    workers = sum(each.kind == "worker" for each in live)
    now = datetime.fromtimestamp(state.at_ms / 1000, UTC).strftime("%H:%M:%S UTC")
    modes = [f"{name} {each.standing.mode}" for name, each in state.agents.items()]
    words = (now, _count(workers, "worker"), _count(len(live) - workers, "bridge"), *modes)
    return Text("Flea Fleet  ", style="bold").append("  ·  ".join(words), style="not bold")


def _troubles(state: State) -> Iterable[RenderableType]:
    for trouble in (state.broker, state.store):
        if trouble:
            yield Text(f"! {trouble}", style="bold red")


def _warnings(state: State) -> Iterable[RenderableType]:
    yield from _troubles(state)
    for pause in state.pauses:
        who = f"{pause.operator}{': ' if pause.note else ''}{pause.note}"
        since = ago(state.at_ms, pause.at_ms)
        yield Text(f"! paused for {since}: {described(pause)} ({who})", style="yellow")
    for halt in state.halts:
        since = ago(state.at_ms, halt.at_ms)
        text = f"! halted for {since}: {halt.handler} of {halt.service} ({halt.reason})"
        yield Text(text, style="bold red")
    for name, breaker in state.breakers.items():
        if breaker.opened_ms:
            since = ago(state.at_ms, breaker.opened_ms)
            yield Text(f"! the breaker of {name} is open for {since}", style="yellow")
    yield from map(_doubt, state.doubtful)
    if state.alerts:
        counts = ", ".join(f"{count:,} {name}" for name, count in sorted(state.alerts.items()))
        yield Text(f"! alerts are open: {counts} (fleet alerts list)", style="yellow")
    if state.store or not state.leases:
        return
    if not any(lease.holder and lease.expires_at_ms > state.at_ms for lease in state.leases):
        yield Text("! no bridge leads: nothing is read from the stream", style="bold red")


def _doubt(one: Position) -> Text:
    words = (
        f"! what {one.pair} {one.direction} of {one.agent} gained is not known:",
        f"{one.presumed:,} USDC count as lost (fleet effects settle {one.key})",
    )
    return Text(" ".join(words), style="bold red")


def _replicas(state: State) -> Table:
    right = ("rate/s", "in hand", "lag", "handled", "failed", "retried", "lanes", "up", "heard")
    table = _table("replicas", ("name", "service", "state", *right), right)
    owned = _owned(state)
    for each in state.replicas:
        pulse, is_live = each.pulse, each.is_live(state.at_ms)
        style = _STATES.get(pulse.state, "yellow") if is_live else "dim"
        shown = pulse.state if is_live else "silent"
        prefetch = f" / {pulse.prefetch:,}" if pulse.prefetch else ""
        table.add_row(
            cell(each.name),
            cell(each.service),
            f"[{style}]{shown}[/] {cell(pulse.note)}".rstrip(),
            f"{pulse.rate:,.1f}" if is_live else "",
            f"{pulse.in_hand:,}{prefetch}" if is_live else "",
            span(pulse.lag_s) if is_live and pulse.lag_s else "",
            f"{pulse.handled:,}",
            _some(pulse.failed),
            _some(pulse.retried),
            _some(owned.get((each.service, each.name), 0) if is_live else 0),
            span((each.at_ms - each.started_ms) / 1000),
            ago(state.at_ms, each.at_ms),
        )
    return table


def _owned(state: State) -> dict[tuple[str, str], int]:
    return {
        (service.name, owner): count
        for service in state.services
        if service.queues
        for owner, count in service.queues.lanes.owners.items()
    }


def _queues(state: State) -> Table:
    right = ("work", "consumers", "lanes", "retries", "failed", "oldest")
    table = _table("queues", ("service", *right), right)
    for service in state.services:
        table.add_row(cell(service.name), *_depths(state, service))
    for name, depth in (
        ("unrouted", state.shared.unrouted),
        ("quarantine", state.shared.quarantine),
    ):
        if depth:
            table.add_row(f"[yellow]pf.{name}[/]", f"[yellow]{depth:,}[/]")
    for cursor in state.cursors:
        lag = ago(state.at_ms, cursor.event_ms) if cursor.event_ms else "?"
        saved = ago(state.at_ms, cursor.saved_ms)
        words = f"the last event is {lag} old, saved {saved} ago"
        table.caption = f"{table.caption or ''}{cell(cursor.source)}: {words}\n"
    return table


def _depths(state: State, service: ServiceState) -> list[str]:
    queues = service.queues
    if queues is None:
        return ["?"] * 6
    lanes = queues.lanes
    unconsumed = f", [bold red]{lanes.unconsumed} without a consumer[/]" if lanes.unconsumed else ""
    retries = ", ".join(f"{count:,} up to {bound} s" for bound, count in queues.retries.items())
    failed = queues.failed or 0
    oldest = ago(state.at_ms, service.oldest_failed_ms) if service.oldest_failed_ms else ""
    return [
        "absent" if queues.work is None else f"{queues.work:,}",
        str(queues.consumers),
        f"{lanes.ready:,} in {lanes.count}{unconsumed}" if lanes.count else "",
        retries,
        f"[bold red]{failed:,}[/]" if failed > WARN_ABOVE else _some(failed),
        oldest if failed else "",
    ]


def _groups(state: State) -> Table:
    rows = [(each.name, group) for each in state.services for group in each.groups]
    titles = ("service", "handler", "count", "last", "like")
    table = _table("failed, as the journal has it", titles, ("count",))
    for service, group in rows:
        last = ago(state.at_ms, group.last_ms)
        count = f"{group.count:,}"
        table.add_row(cell(service), cell(group.handler), count, last, cell(group.error[:100]))
    return table


def _agents(state: State) -> Table:
    right = ("balance", "drawdown", "realised")
    table = _table("agents", ("agent", "mode", "why", *right), right)
    for name, each in state.agents.items():
        standing, health = each.standing, each.health
        mode = f"[{_MODES.get(standing.mode, 'yellow')}]{standing.mode}[/]"
        balance = "unknown" if health.balance is None else f"{health.balance:,}"
        more = (balance, f"{health.drawdown:.1%}", f"{each.realised:,}")
        why = " ".join(filter(None, (standing.reason, standing.note)))
        table.add_row(cell(name), mode, cell(why), *more)
    return table


def _effects(state: State) -> Table:
    titles = ("reserved", "done", "failed", "unknown")
    table = _table("effects", ("kind", *titles), titles)
    for kind, states in state.effects.items():
        counts = [_some(states.get(each, 0)) for each in titles[:-1]]
        table.add_row(cell(kind), *counts, _alarming(states.get("unknown", 0)))
    return table


def _positions(state: State) -> Table:
    titles = ("agent", "pair", "direction", "size", "leverage", "state", "since")
    table = _table("positions", titles, ("size", "leverage"))
    for each in state.positions:
        since = ago(state.at_ms, each.opened_ms or each.ts_ms)
        cells = (each.agent, each.pair, each.direction, f"{each.size:,}", f"{each.leverage}")
        table.add_row(*map(cell, cells), each.state, since)
    return table


def _table(title: str, columns: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table


def _took(line: Line, seconds: float | None) -> str:
    if seconds is None:
        return "" if not line.rate else "> 30 s"
    return f"{seconds * 1000:g} ms" if seconds < 1 else f"{seconds:g} s"


def _count(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _some(count: int) -> str:
    return f"{count:,}" if count else ""


def _alarming(count: int) -> str:
    return f"[bold red]{count:,}[/]" if count else ""
