"""Forgets alerts, decisions and case files that are over: never what is open, and never money."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec

from fleet.store import alerts, cases, effects
from fleet.store.api import Store, Tx
from fleet.store.cases import Entry

PAGE: Final = 500

RESOLVED: Final = f"at_ms < ? AND {alerts.RESOLVED}"
# The reason stays for an order that is under way, or failed and waits for a person, and for a
# position that is open.
DECIDED: Final = (
    "at_ms < ? AND NOT EXISTS (SELECT 1 FROM effects WHERE effect_key = decisions.trade_key"
    " AND state IN ('reserved', 'unknown')) AND NOT EXISTS (SELECT 1 FROM positions"
    " WHERE position_key = decisions.trade_key AND state IN ('reserved', 'open', 'closing'))"
    " AND NOT EXISTS (SELECT 1 FROM bindings JOIN journal"
    " ON journal.service = bindings.service AND journal.event_id = decisions.order_id"
    " WHERE journal.outcome = 'failed')"
)
_QUIET: Final = (
    "SELECT agent, subject FROM cases WHERE (agent, subject) > (?, ?)"
    " GROUP BY agent, subject HAVING max(at_ms) < ? ORDER BY agent, subject LIMIT ?"
)


async def told(store: Store, table: str, over: str, cutoff_ms: int, *, dry_run: bool) -> int:
    """Delete what is `over` (SQL) out of alerts or decisions, a page at a time; how much."""
    if dry_run:
        count = f"SELECT count(*) FROM {table} WHERE {over}"
        return int(await store.read(lambda tx: tx.query(count, (cutoff_ms,))[0][0]))
    page = f"SELECT event_id FROM {table} WHERE {over} ORDER BY event_id LIMIT {PAGE}"
    sql = f"DELETE FROM {table} WHERE event_id IN ({page})"
    total = 0
    while gone := await store.run(lambda tx: tx.execute(sql, (cutoff_ms,))):
        total += gone
    return total


async def case_files(store: Store, cutoff_ms: int, *, dry_run: bool) -> int:
    """Delete the case files that are quiet for so long and over, as a whole; how many entries."""
    gone, after = 0, ("", "")
    while quiet := await store.read(partial(_quiet, after=after, cutoff_ms=cutoff_ms)):
        after = quiet[-1]
        work = partial(_close, subjects=quiet, cutoff_ms=cutoff_ms, dry_run=dry_run)
        gone += await (store.read(work) if dry_run else store.run(work))
    return gone


def is_over(tx: Tx, subject: str, entries: Sequence[Entry]) -> bool:
    """Whether a case waits for nothing: no dispute, no job without an end, no effect but done."""
    kinds = {entry.event_type for entry in entries}
    escrows = [entry for entry in entries if entry.event_type.startswith("escrow.")]
    last = max(escrows, key=lambda entry: entry.event_id, default=None)
    if last is not None and last.event_type == "escrow.disputed":
        return False
    if subject.startswith("job/") and not kinds & {"job.completed", "job.failed"}:
        return False
    bodies = (msgspec.json.decode(entry.body, type=dict) for entry in entries)
    keys = {str(body["key"]) for body in bodies if "key" in body}
    return all(effect.state == "done" for effect in effects.find(tx, keys).values())


def _quiet(tx: Tx, after: tuple[str, str], cutoff_ms: int) -> list[tuple[str, str]]:
    return [(agent, subject) for agent, subject in tx.query(_QUIET, (*after, cutoff_ms, PAGE))]


def _close(tx: Tx, subjects: Sequence[tuple[str, str]], cutoff_ms: int, *, dry_run: bool) -> int:
    gone = 0
    for agent, subject in subjects:
        entries = cases.about(tx, agent, subject)
        # Once more: since it was found quiet, something may have been noted.
        is_quiet = all(entry.at_ms < cutoff_ms for entry in entries)
        if not (is_quiet and is_over(tx, subject, entries)):
            continue
        gone += len(entries) if dry_run else cases.remove(tx, agent, subject)
    return gone
