"""The closing figures of a demo, as an object and for a person."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from rich.console import Console
from rich.table import Table

from fleet.audit.books import percentile
from fleet.audit.ids import unpack
from fleet.audit.verdict import verdict
from fleet.demo.story import Ending
from fleet.demo.venue import VenueEnd

NAMED: Final = 20
BACKLOG_MS: Final = 250
BACKLOG: Final = "a backlog: the feed outran the fleet"
LANES: Final = "lanes follow pairs: one pair, one worker"
Row: TypeAlias = tuple[str, str, str]
ROADS: Final = {
    "emitted": "by feed and handlers: orders are events too",
    "published": "confirmed by the broker",
    "shed": "live prices refused by a full queue",
    "quarantined": "unreadable, kept in pf.quarantine",
    "missed": "the source could not give them again",
}
ENDS: Final = {
    "handled": "done",
    "skipped": "nothing to do: done before, or at a limit",
    "expired": "too old to act on",
    "failed": "parked in the failed queue for a person",
    "waiting": "still in a queue",
    "unrouted": "of a type that nobody handles",
    "unaccounted": "in none of these",
}


def figures(ending: Ending) -> dict[str, Any]:
    """The one object of `fleet demo --json`."""
    reckoning, ledger = ending.findings.reckoning, ending.findings.ledger
    counts, roads, ages = reckoning.fleet.counts, reckoning.roads, ending.findings.ages_ms
    done_by = {
        worker: sum(journal.done_by[worker] for journal in ending.findings.journals.values())
        for worker in ending.workers
    }
    return {
        "emitted": reckoning.emitted,
        **{road: roads[road] for road in ("published", "shed", "quarantined", "missed")},
        "handled": counts["done"],
        **{each: counts[each] for each in ("skipped", "expired", "failed", "waiting", "unrouted")},
        "unaccounted": len(reckoning.unaccounted) + ending.findings.unreadable,
        "orders_opened": ledger.opened if ledger else 0,
        "orders_closed": ledger.closed if ledger else 0,
        "orders_duplicated": ledger.duplicated if ledger else 0,
        "latency_ms": {"p50": percentile(ages, 0.5), "p99": percentile(ages, 0.99)},
        "workers": [{"name": name, "handled": done} for name, done in done_by.items()],
        "seconds": round(ending.seconds, 1),
        **_venue(ending),
    }


def _venue(ending: Ending) -> dict[str, Any]:
    """What a venue that misbehaves led to, where it was asked to."""
    if ending.venue is None:
        return {}
    end = ending.venue
    return {
        "mode": end.mode,
        "calls": end.calls,
        "injections": end.injections,
        "injection_rate": end.rate,
    }


def tell(ending: Ending, console: Console) -> None:
    """The same for a stranger: with what each figure means, and what it all comes to."""
    console.print(_table(figures(ending)))
    if ending.skipped_lines:
        lines = "1 line" if ending.skipped_lines == 1 else f"{ending.skipped_lines:,} lines"
        console.print(f"Skipped {lines} of the tape: no trades.")
    if ending.venue is not None:
        _tell_venue(ending.venue, console)
    if ending.stalled:
        console.print(ending.stalled, soft_wrap=True)
    console.print(verdict(ending.findings), soft_wrap=True)


def _tell_venue(end: VenueEnd, console: Console) -> None:
    faults = ", ".join(
        f"{count:,} {name.replace('_', ' ')}" for name, count in end.injected.items()
    )
    console.print(
        f"The venue was called {end.calls:,} times and failed {end.injections:,} times"
        f" ({end.rate:.0%}: {faults}); the agent ended in mode {end.mode}.",
        soft_wrap=True,
    )
    for difference in end.differences or ("Book and venue have the same positions.",):
        console.print(difference, soft_wrap=True)


def _table(said: dict[str, Any]) -> Table:
    result = Table(title=f"Flea Fleet, {said['seconds']} s", show_header=False)
    result.add_column(no_wrap=True)
    result.add_column(justify="right", no_wrap=True)
    result.add_column(style="dim")
    for title, note, rows in (
        ("Events", "", _legend(said, ROADS)),
        ("What became of them", "", _legend(said, ENDS)),
        ("Orders at the venue", "", _orders(said)),
        ("Stream to handler", "", _latency(said["latency_ms"])),
        ("Handled by", LANES, _shares(said)),
    ):
        result.add_row(f"[bold]{title}[/]", "", note)
        for row in rows:
            result.add_row(*row)
        result.add_section()
    return result


def _legend(said: dict[str, Any], meanings: dict[str, str]) -> list[Row]:
    return [(f"  {name}", f"{said[name]:,}", meaning) for name, meaning in meanings.items()]


def _orders(said: dict[str, Any]) -> list[Row]:
    opened, closed = said["orders_opened"], said["orders_closed"]
    return [
        ("  opened", f"{opened:,}", ""),
        ("  closed", f"{closed:,}", ""),
        ("  still open", f"{opened - closed:,}", ""),
        ("  placed twice", f"{said['orders_duplicated']:,}", "by the venue's own ledger"),
    ]


def _latency(said: dict[str, int | None]) -> list[Row]:
    median = said["p50"]
    note = BACKLOG if median is not None and median > BACKLOG_MS else ""
    shown = {name: "none" if ms is None else f"{ms:,} ms" for name, ms in said.items()}
    return [("  p50", shown["p50"], note), ("  p99", shown["p99"], "")]


def _shares(said: dict[str, Any]) -> list[Row]:
    return [(f"  {each['name']}", f"{each['handled']:,}", "") for each in said["workers"]]


def tell_missing(ending: Ending, console: Console) -> None:
    """Name what is unaccounted: the first 20 ids."""
    missing = ending.findings.reckoning.unaccounted
    for event in missing[:NAMED]:
        console.print(f"unaccounted: {unpack(event)}")
    if len(missing) > NAMED:
        console.print(f"… and {len(missing) - NAMED:,} more")
