"""Case files: every event about a job or an escrow, kept with its body for a dispute."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fleet.store.api import Tx


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An event about `subject`, handled at `at_ms`; `body` is its payload as JSON text."""

    agent: str
    subject: str
    event_id: str
    event_type: str
    body: str
    at_ms: int


_COLUMNS = Entry.__struct_fields__
_LIST = ", ".join(_COLUMNS)


def add(tx: Tx, entries: Iterable[Entry]) -> None:
    """Keep these; the same event about the same subject is there once."""
    tx.bulk(
        _COLUMNS,
        [msgspec.structs.astuple(entry) for entry in entries],
        f"INSERT INTO cases ({_LIST}) SELECT {_LIST} FROM rows WHERE true"
        " ON CONFLICT (agent, subject, event_id) DO NOTHING",
    )


def about(tx: Tx, agent: str, subject: str) -> list[Entry]:
    """What is known of a subject, in the order in which it was handled."""
    rows = tx.query(
        f"SELECT {_LIST} FROM cases WHERE agent = ? AND subject = ? ORDER BY at_ms, event_id",
        (agent, subject),
    )
    return [Entry(*row) for row in rows]
