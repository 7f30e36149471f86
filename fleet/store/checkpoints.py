"""Checkpoints: the last two states of a thing, each with a sequence number and a checksum."""

from __future__ import annotations

import hashlib

import msgspec

from fleet.store.api import Tx


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """The newest state that is whole; `body` is "" where there is none.

    `seq` is the number of that state, `newest` the highest there is: where they differ, what is
    in between is damaged.
    """

    name: str
    seq: int = 0
    newest: int = 0
    body: str = ""
    at_ms: int = 0

    @property
    def is_damaged(self) -> bool:
        """Whether a newer state than this one was refused."""
        return self.newest > self.seq


def load(tx: Tx, name: str) -> Checkpoint:
    """The newest whole state under `name`."""
    rows = tx.query(
        "SELECT seq, body, checksum, at_ms FROM checkpoints WHERE name = ? ORDER BY seq DESC",
        (name,),
    )
    newest = rows[0][0] if rows else 0
    for seq, body, checksum, at_ms in rows:
        if checksum == _checksum(name, seq, body, at_ms):
            return Checkpoint(name, seq, newest, body, at_ms)
    return Checkpoint(name, newest=newest)


def names(tx: Tx, prefix: str) -> list[str]:
    """The names that begin with `prefix`, in order."""
    rows = tx.query(
        "SELECT DISTINCT name FROM checkpoints WHERE substr(name, 1, ?) = ? ORDER BY name",
        (len(prefix), prefix),
    )
    return [name for (name,) in rows]


def save(tx: Tx, known: Checkpoint, body: str, now_ms: int) -> bool:
    """Make `body` the state that follows `known`, which is kept; all others go.

    False, and nothing is written, where another state has followed it already.
    """
    if load(tx, known.name) != known:
        return False
    seq = known.newest + 1
    tx.execute(
        "INSERT INTO checkpoints (name, seq, body, checksum, at_ms) VALUES (?, ?, ?, ?, ?)",
        (known.name, seq, body, _checksum(known.name, seq, body, now_ms), now_ms),
    )
    tx.execute(
        "DELETE FROM checkpoints WHERE name = ? AND seq <> ? AND seq <> ?",
        (known.name, seq, known.seq),
    )
    return True


def _checksum(name: str, seq: int, body: str, at_ms: int) -> str:
    return hashlib.sha256(f"{name}\n{seq}\n{at_ms}\n{body}".encode()).hexdigest()
