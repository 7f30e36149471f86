"""The numbers of a writer's commits: one whose answer was lost is looked up, not guessed."""

from __future__ import annotations

import os
import secrets
import socket
from typing import Final

from fleet.store.postgres_link import Connection
from fleet.store.postgres_tx import Command

KEPT: Final = "7 days"
"""A writer that has committed nothing for so long is forgotten; if it lives, it is made anew."""

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS commit_marks (writer TEXT PRIMARY KEY, number BIGINT NOT NULL,"
    " at TIMESTAMPTZ NOT NULL) WITH (fillfactor = 50)"
)
_FORGET: Final = f"DELETE FROM commit_marks WHERE at < now() - interval '{KEPT}'"
_ENTER: Final = (
    "INSERT INTO commit_marks (writer, number, at) VALUES ($1, 0, now()) ON CONFLICT DO NOTHING"
)
_LEAVE: Final = "DELETE FROM commit_marks WHERE writer = $1"
# Divides by zero where the number is taken: the transaction is then over, whatever follows.
_TAKE: Final = (
    "WITH marked AS (UPDATE commit_marks SET number = $2, at = now()"
    " WHERE writer = $1 AND number < $2 RETURNING 1) SELECT 1 / count(*) FROM marked"
)
_FENCE: Final = "UPDATE commit_marks SET number = $2 WHERE writer = $1 AND number < $2"


class Marks:
    """One writer's numbers, each of which can be taken once.

    With each commit goes the next one. Whoever asks afterwards tries to take it: if it is gone the
    commit was made, and if not it never will be.
    """

    def __init__(self) -> None:
        self._writer = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._number = 0

    def enter(self, connection: Connection) -> None:
        """Have the writer's row, on a new connection."""
        connection.execute(_ENTER, (self._writer,))

    def leave(self, connection: Connection) -> None:
        """Take the row away: the writer ends."""
        connection.execute(_LEAVE, (self._writer,))

    def next(self) -> Command:
        """The statement that takes the next number, and goes with its commit.

        It raises DivisionByZero where it cannot, and the row was cleared away.
        """
        self._number += 1
        return _TAKE, (self._writer, self._number)

    def is_taken(self, connection: Connection) -> bool:
        """Whether the commit with the last number was made; after this it is not made any more."""
        return connection.execute(_FENCE, (self._writer, self._number)).rowcount == 0


def prepare(connection: Connection) -> None:
    """Have the table, without the rows of writers that are long gone."""
    connection.execute(_TABLE)
    connection.execute(_FORGET)
