"""The closing figures of a demo, as an object and as a table."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from fleet.audit.books import percentile
from fleet.audit.ids import unpack
from fleet.demo.story import Ending

NAMED = 20


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
    }


def table(ending: Ending) -> Table:
    """The same for a person."""
    said = figures(ending)
    result = Table(title=f"Flea Fleet, {said['seconds']} s", show_header=False)
    result.add_column(style="bold")
    result.add_column(justify="right")
    latency, workers = said.pop("latency_ms"), said.pop("workers")
    del said["seconds"]
    for name, figure in said.items():
        result.add_row(name.replace("_", " "), f"{figure:,}")
        if name in ("missed", "unrouted", "unaccounted", "orders_duplicated"):
            result.add_section()
    for share, value in latency.items():
        result.add_row(f"stream to handler, {share}", "none" if value is None else f"{value:,} ms")
    result.add_section()
    for worker in workers:
        result.add_row(worker["name"], f"{worker['handled']:,}")
    return result


def tell_missing(ending: Ending, console: Console) -> None:
    """Name what is unaccounted: the first 20 ids."""
    missing = ending.findings.reckoning.unaccounted
    for event in missing[:NAMED]:
        console.print(f"unaccounted: {unpack(event)}")
    if len(missing) > NAMED:
        console.print(f"… and {len(missing) - NAMED:,} more")
