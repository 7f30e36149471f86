"""The journal: what became of each event, once per service; inbox and audit in one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fleet.store.again import OvertakenError
from fleet.store.api import Candidate, Settled, Tx

Key = tuple[str, str]
"""Service and event id."""
Row = tuple[str, int]
"""Outcome and replay count."""

_COLUMNS = (
    "service",
    "event_id",
    "outcome",
    "attempt",
    "worker",
    "handler",
    "reason",
    "replay_count",
    "at_ms",
    "age_ms",
)
_KEY = ("service", "event_id")
_LIST = ", ".join(_COLUMNS)
_INSERT = f"INSERT INTO journal ({_LIST}) SELECT {_LIST} FROM rows"
# A CROSS JOIN keeps SQLite from scanning the table and looking rows up in it.
_SAME = "journal.service = rows.service AND journal.event_id = rows.event_id"
_INSERT_NEW = f"{_INSERT} WHERE NOT EXISTS (SELECT 1 FROM rows CROSS JOIN journal WHERE {_SAME})"
# The guard repeats `counts_as_seen`: of two writers at once the second one changes fewer rows than
# it wrote, and its transaction is done again.
_UPSERT = (
    f"{_INSERT} WHERE true ON CONFLICT (service, event_id) DO UPDATE SET "
    + ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS[2:])
    + " WHERE excluded.outcome <> 'shed' AND (journal.outcome = 'shed'"
    " OR (journal.outcome IN ('failed', 'expired')"
    " AND journal.replay_count < excluded.replay_count))"
)
_ROWS = (
    "SELECT journal.service, journal.event_id, journal.outcome, journal.replay_count"
    f" FROM rows CROSS JOIN journal WHERE {_SAME}"
)


def counts_as_seen(row: Row | None, replay_count: int) -> bool:
    """Whether a journal row says that a delivery with this replay count was handled.

    Done and skipped always do; failed and expired do until a replay; shed never does, as
    another lane may have taken the event.
    """
    if row is None or row[0] == "shed":
        return False
    return row[0] in ("done", "skipped") or row[1] >= replay_count


def rows_of(tx: Tx, keys: Iterable[Key]) -> dict[Key, Row]:
    """The journal rows that exist for these keys."""
    found = tx.lookup(_KEY, list(keys), _ROWS, ("service", "event_id", "outcome", "replay_count"))
    return {(service, event_id): (outcome, count) for service, event_id, outcome, count in found}


def verdict(tx: Tx, service: str, event_id: str) -> tuple[str, str] | None:
    """The outcome and the reason that are written down for an event; None where nothing is."""
    rows = tx.query(
        "SELECT outcome, reason FROM journal WHERE service = ? AND event_id = ?",
        (service, event_id),
    )
    return (rows[0][0], rows[0][1]) if rows else None


def seen(tx: Tx, candidates: Sequence[Candidate]) -> list[str | None]:
    """For each candidate the outcome that counts as seen, or None."""
    rows = rows_of(tx, {(candidate.service, candidate.event_id) for candidate in candidates})
    standing = []
    for candidate in candidates:
        row = rows.get((candidate.service, candidate.event_id))
        counts = row is not None and counts_as_seen(row, candidate.replay_count)
        standing.append(row[0] if row is not None and counts else None)
    return standing


def insert_new(tx: Tx, entries: Sequence[Settled]) -> bool:
    """Insert all of these rows where none of them exists yet, else none: one statement.

    No two entries may be of one event.
    """
    return tx.bulk(_COLUMNS, [_row(entry) for entry in entries], _INSERT_NEW) == len(entries)


def upsert(tx: Tx, entries: Mapping[Key, Settled]) -> None:
    """Write rows over whatever does not count as seen.

    Raises OvertakenError where a row appeared since it was looked up.
    """
    if not entries:
        return
    if tx.bulk(_COLUMNS, [_row(entry) for entry in entries.values()], _UPSERT) != len(entries):
        raise OvertakenError


def insert(tx: Tx, entries: Sequence[Settled]) -> int:
    """Write the rows of events that have none that counts as seen; how many were written."""
    old = rows_of(tx, {(entry.service, entry.event_id) for entry in entries})
    fresh: dict[Key, Settled] = {}
    for entry in entries:
        if admissible(old, entry):
            fresh[entry.service, entry.event_id] = entry
            old[entry.service, entry.event_id] = (entry.outcome, entry.replay_count)
    upsert(tx, fresh)
    return len(fresh)


def admissible(old: Mapping[Key, Row], entry: Settled) -> bool:
    """Whether the entry may be written over what the journal has; shed beats nothing."""
    row = old.get((entry.service, entry.event_id))
    if entry.outcome == "shed":
        return row is None
    return not counts_as_seen(row, entry.replay_count)


def started(tx: Tx, service: str, event_id: str, worker: str, now_ms: int) -> int:
    """Note that a delivery that came back is about to run; how often it has started by now."""
    tx.execute(
        "INSERT INTO starts (service, event_id, starts, worker, at_ms) VALUES (?, ?, 1, ?, ?)"
        " ON CONFLICT (service, event_id) DO UPDATE SET starts = starts.starts + 1,"
        " worker = excluded.worker, at_ms = excluded.at_ms",
        (service, event_id, worker, now_ms),
    )
    return starts(tx, service, [event_id])[event_id]


def starts(tx: Tx, service: str, ids: Iterable[str]) -> dict[str, int]:
    """How often each of these events has started without a final outcome; only those that did."""
    found = tx.lookup(
        _KEY,
        [(service, event_id) for event_id in ids],
        "SELECT starts.event_id, starts.starts FROM rows"
        " CROSS JOIN starts WHERE starts.service = rows.service"
        " AND starts.event_id = rows.event_id",
        ("event_id", "starts"),
    )
    return dict(found)


def forget_starts(tx: Tx, entries: Iterable[Settled]) -> None:
    """Delete the starts of what has a final outcome now."""
    keys = [(entry.service, entry.event_id) for entry in entries]
    if keys:
        tx.bulk(
            _KEY,
            keys,
            "DELETE FROM starts WHERE (service, event_id) IN (SELECT service, event_id FROM rows)",
        )


def _row(entry: Settled) -> tuple[str | int, ...]:
    return (
        entry.service,
        entry.event_id,
        entry.outcome,
        entry.attempt,
        entry.worker,
        entry.handler,
        entry.reason,
        entry.replay_count,
        entry.at_ms,
        entry.age_ms,
    )
