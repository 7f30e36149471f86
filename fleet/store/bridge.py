"""What the bridge writes: the cursor, and beside it whatever did not reach the exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from fleet.store import cursors, journal
from fleet.store.api import BRIDGE, Lease, Settled, Tx


class ShedRow(msgspec.Struct, frozen=True, gc=False):
    """A live-only event that a full queue refused."""

    event_id: str
    reason: str
    at_ms: int
    age_ms: int = 0


class MissedRange(msgspec.Struct, frozen=True, gc=False):
    """Events between two cursors that the source could not give again; ends excluded."""

    after: str
    before: str
    at_ms: int
    count: int | None = None


class QuarantinedRow(msgspec.Struct, frozen=True, gc=False):
    """A frame that could not be read; `cursor` is the last one settled before it."""

    cursor: str
    reason: str
    sha256: str
    at_ms: int


def settle_prefix(
    tx: Tx,
    *,
    source: str,
    cursor: str,
    lease: Lease,
    now_ms: int,
    shed: Sequence[ShedRow] = (),
    missed: Sequence[MissedRange] = (),
    quarantined: Sequence[QuarantinedRow] = (),
    counts: Mapping[str, int] | None = None,
) -> None:
    """Move the cursor and write down what was shed, missed and quarantined before it.

    `counts` are added to the counters of the source. Raises StateError where the lease was
    lost; then nothing is written.
    """
    cursors.move(tx, source=source, cursor=cursor, lease=lease, now_ms=now_ms)
    if shed:
        journal_shed(tx, shed, lease.holder)
    if missed:
        _miss(tx, source, missed)
    if quarantined:
        _quarantine(tx, source, quarantined)
    if counts:
        _count(tx, source, counts)


def journal_shed(tx: Tx, rows: Sequence[ShedRow], worker: str) -> None:
    """Account for events that a full queue refused for good."""
    journal.insert(tx, [_shed(row, worker) for row in rows])


def counts(tx: Tx, source: str) -> dict[str, int]:
    """The counters of a source."""
    return dict(tx.query("SELECT name, total FROM bridge_counts WHERE source = ?", (source,)))


def _shed(row: ShedRow, worker: str) -> Settled:
    return Settled(
        service=BRIDGE,
        event_id=row.event_id,
        outcome="shed",
        attempt=0,
        worker=worker,
        at_ms=row.at_ms,
        reason=row.reason,
        age_ms=row.age_ms,
    )


def _miss(tx: Tx, source: str, missed: Sequence[MissedRange]) -> None:
    tx.bulk(
        ("source", "after_id", "before_id", "at_ms", "events"),
        [(source, row.after, row.before, row.at_ms, row.count) for row in missed],
        "INSERT INTO missed (source, after_id, before_id, at_ms, events)"
        # A relation of rows does not know the type of a column that is NULL throughout.
        " SELECT source, after_id, before_id, at_ms, CAST(events AS BIGINT) FROM rows WHERE true"
        " ON CONFLICT (source, after_id, before_id) DO NOTHING",
    )


def _quarantine(tx: Tx, source: str, quarantined: Sequence[QuarantinedRow]) -> None:
    tx.bulk(
        ("source", "cursor_value", "reason", "sha256", "at_ms"),
        [(source, row.cursor, row.reason, row.sha256, row.at_ms) for row in quarantined],
        "INSERT INTO quarantined (source, cursor_value, reason, sha256, at_ms)"
        " SELECT source, cursor_value, reason, sha256, at_ms FROM rows",
    )


def _count(tx: Tx, source: str, added: Mapping[str, int]) -> None:
    tx.bulk(
        ("source", "name", "total"),
        [(source, name, total) for name, total in added.items()],
        "INSERT INTO bridge_counts (source, name, total)"
        " SELECT source, name, total FROM rows WHERE true"
        " ON CONFLICT (source, name) DO UPDATE SET total = bridge_counts.total + excluded.total",
    )
