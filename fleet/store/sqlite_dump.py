"""All of a SQLite store, out and in."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from fleet.core.errors import StoreError
from fleet.store.sqlite_schema import version_of
from fleet.store.sqlite_tx import SqliteTx


class SqliteDump:
    """What a read transaction sees."""

    def __init__(self, tx: SqliteTx) -> None:
        self._tx = tx

    def version(self) -> int:
        """The version of its schema."""
        return version_of(self._tx)

    def columns(self, table: str) -> list[str]:
        """The names of a table's columns."""
        return [
            name for (name,) in self._tx.query("SELECT name FROM pragma_table_info(?)", (table,))
        ]

    def pages(self, table: str, columns: Sequence[str], size: int) -> Iterator[list[Any]]:
        """All rows of a table, at most `size` at a time."""
        yield from self._tx.pages(f"SELECT {', '.join(columns)} FROM {table}", size)


def load(tx: SqliteTx, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Add rows to a table; StoreError where they do not fit."""
    marks = ", ".join("?" * len(columns))
    try:
        for row in rows:
            tx.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", row)
    except sqlite3.Error as error:
        raise StoreError(f"The rows of {table} cannot be stored: {error}.") from error
