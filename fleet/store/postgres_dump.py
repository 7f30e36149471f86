"""All of a PostgreSQL store, out and in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from fleet.core.errors import StoreError
from fleet.store.postgres_link import Connection

_COLUMNS = (
    "SELECT column_name FROM information_schema.columns"
    " WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position"
)


class PostgresDump:
    """What a transaction sees that reads only, all of it as it was at its begin."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def begin(self) -> None:
        """Stand still here."""
        # The connection avoids scans for the sake of its look-ups; here all is wanted.
        self._connection.execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL enable_seqscan = on"
        )

    def version(self) -> int:
        """The version of its schema."""
        newest = self._connection.execute("SELECT max(version) FROM schema_version").fetchall()
        return int(newest[0][0])

    def columns(self, table: str) -> list[str]:
        """The names of a table's columns."""
        return [name for (name,) in self._connection.execute(_COLUMNS, (table,))]

    def pages(self, table: str, columns: Sequence[str], size: int) -> Iterator[list[Any]]:
        """All rows of a table, at most `size` at a time."""
        self._connection.execute(
            f"DECLARE dump CURSOR FOR SELECT {', '.join(columns)} FROM {table}"
        )
        while rows := self._connection.execute(f"FETCH {size} FROM dump").fetchall():
            yield rows
        self._connection.execute("CLOSE dump")


def load(
    connection: Connection, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Add rows to a table; StoreError where they do not fit."""
    try:
        with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        said = error.diag.message_primary or type(error).__name__
        raise StoreError(f"The rows of {table} cannot be stored: {said}.") from error


def loaded(connection: Connection, table: str) -> None:
    """Let a table that numbers its rows go on after the highest number."""
    if "id" in PostgresDump(connection).columns(table):
        sequence = f"pg_get_serial_sequence('{table}', 'id')"
        connection.execute(f"SELECT setval({sequence}, max(id)) FROM {table}")
