"""Cursors: how far a source is settled at the broker; only the lease's holder moves one."""

from __future__ import annotations

from fleet.core.errors import StateError
from fleet.store import leases
from fleet.store.api import Lease, Tx


def get(tx: Tx, source: str) -> str:
    """The cursor of a source, "" where there is none yet."""
    rows = tx.query("SELECT cursor_value FROM cursors WHERE source = ?", (source,))
    return str(rows[0][0]) if rows else ""


def every(tx: Tx) -> list[tuple[str, str, int]]:
    """The cursor of each source, and when it was moved last."""
    return [
        (source, cursor, at_ms)
        for source, cursor, at_ms in tx.query(
            "SELECT source, cursor_value, at_ms FROM cursors ORDER BY source"
        )
    ]


def move(tx: Tx, *, source: str, cursor: str, lease: Lease, now_ms: int) -> None:
    """Set the cursor. Raises StateError where the lease was lost."""
    if not leases.held(tx, lease):
        raise StateError(f"The lease {lease.name} was lost: another holder has it now.")
    tx.execute(
        "INSERT INTO cursors (source, cursor_value, epoch, at_ms) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (source) DO UPDATE SET cursor_value = excluded.cursor_value,"
        " epoch = excluded.epoch, at_ms = excluded.at_ms",
        (source, cursor, lease.epoch, now_ms),
    )
