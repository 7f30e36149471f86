"""Forgets what nothing can ask about any more: old journal rows, quiet keys, and what is over."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from fleet.core.ulid import ENTROPY_BYTES, make_ulid
from fleet.store import prune_told
from fleet.store.api import Store, Tx

PAGE: Final = 1_000
"""Rows deleted in one transaction: workers wait for each other less than for a disk."""

_OLD: Final = (
    "SELECT event_id, at_ms, outcome, EXISTS (SELECT 1 FROM archive"
    " WHERE archive.message_id = journal.event_id AND archive.restored_ms = 0)"
    " FROM journal WHERE service = ? AND event_id > ? AND event_id < ? ORDER BY event_id LIMIT ?"
)
_KEY: Final = ("service", "event_id", "at_ms")
# By its time as well: a replay may have written the row anew since it was looked at.
_FORGET: Final = (
    "DELETE FROM journal WHERE (service, event_id, at_ms)"
    " IN (SELECT service, event_id, at_ms FROM rows)"
)


class Pruned(msgspec.Struct, frozen=True):
    """How many rows went, or would go; `kept` old journal rows stay for what can come back."""

    journal: int = 0
    kept: int = 0
    starts: int = 0
    lane_states: int = 0
    alerts: int = 0
    decisions: int = 0
    cases: int = 0
    quarantined: int = 0


def services(tx: Tx) -> list[str]:
    """Every service that has journal rows, or had its topology applied."""
    found = "SELECT DISTINCT service FROM journal UNION SELECT DISTINCT service FROM bindings"
    return [service for (service,) in tx.query(f"{found} ORDER BY 1")]


async def prune(
    store: Store, cutoff_ms: int, waiting: Mapping[str, Collection[str]], *, dry_run: bool
) -> Pruned:
    """Delete what was written before `cutoff_ms`, some rows at a time.

    A journal row stays where its event can still come back: it failed, its id is among those that
    are `waiting` for a person in its service, or it is archived and was not restored. Alerts go
    that were resolved, decisions whose orders are over, case files that wait for nothing, and the
    notes on frames that could not be read. Effects stay.
    """
    journal = kept = 0
    for service, ids in waiting.items():
        gone, left = await _journal(store, service, cutoff_ms, ids, dry_run=dry_run)
        journal, kept = journal + gone, kept + left
    starts = await _aside(store, "starts", cutoff_ms, dry_run=dry_run)
    states = await _aside(store, "lane_states", cutoff_ms, dry_run=dry_run)
    alerts = await prune_told.told(store, "alerts", prune_told.RESOLVED, cutoff_ms, dry_run=dry_run)
    decisions = await prune_told.told(
        store, "decisions", prune_told.DECIDED, cutoff_ms, dry_run=dry_run
    )
    cases = await prune_told.case_files(store, cutoff_ms, dry_run=dry_run)
    quarantined = await _aside(store, "quarantined", cutoff_ms, dry_run=dry_run)
    return Pruned(journal, kept, starts, states, alerts, decisions, cases, quarantined)


async def _journal(
    store: Store, service: str, cutoff_ms: int, waiting: Collection[str], *, dry_run: bool
) -> tuple[int, int]:
    # A row is never older than its event, and ids are ordered by time: what follows is younger.
    end = make_ulid(cutoff_ms, b"\0" * ENTROPY_BYTES)
    gone, kept, after = 0, 0, ""
    while rows := await store.read(partial(_page, service=service, after=after, end=end)):
        after = rows[-1][0]
        old = [row for row in rows if row[1] < cutoff_ms]
        free = [
            (service, event_id, at_ms)
            for event_id, at_ms, outcome, archived in old
            if outcome != "failed" and not archived and event_id not in waiting
        ]
        kept += len(old) - len(free)
        if free and not dry_run:
            gone += await store.run(partial(_forget, keys=free))
        else:
            gone += len(free)
    return gone, kept


def _page(tx: Tx, service: str, after: str, end: str) -> list[tuple[str, int, str, int]]:
    return [tuple(row) for row in tx.query(_OLD, (service, after, end, PAGE))]


def _forget(tx: Tx, keys: Sequence[tuple[str, str, int]]) -> int:
    return tx.bulk(_KEY, keys, _FORGET)


async def _aside(store: Store, table: str, cutoff_ms: int, *, dry_run: bool) -> int:
    if dry_run:
        sql = f"SELECT count(*) FROM {table} WHERE at_ms < ?"
        return int(await store.read(lambda tx: tx.query(sql, (cutoff_ms,))[0][0]))
    sql = f"DELETE FROM {table} WHERE at_ms < ?"
    return await store.run(lambda tx: tx.execute(sql, (cutoff_ms,)))
