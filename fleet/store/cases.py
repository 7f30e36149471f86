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


MOST = 100_000
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


def remove(tx: Tx, agent: str, subject: str) -> int:
    """Forget a subject; how many entries it had."""
    return tx.execute("DELETE FROM cases WHERE agent = ? AND subject = ?", (agent, subject))


def about(tx: Tx, agent: str, subject: str, most: int = MOST) -> list[Entry]:
    """The last entries of a subject, in the order in which they were handled."""
    rows = tx.query(
        f"SELECT {_LIST} FROM cases WHERE agent = ? AND subject = ?"
        " ORDER BY at_ms DESC, event_id DESC LIMIT ?",
        (agent, subject, most),
    )
    return [Entry(*row) for row in reversed(rows)]
