"""A transaction over SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import msgspec

from fleet.core.errors import LogicError, StateError
from fleet.store import relation
from fleet.store.api import Value
from fleet.store.sqlite_link import known, patiently


class SqliteTx:
    """A transaction over SQLite; see `Tx` for what it promises."""

    alone = True

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.open = False
        self.lost: StateError | None = None

    def execute(self, sql: str, params: Sequence[Value] = ()) -> int:
        """Run one writing statement; the number of rows it changed."""
        before = self._connection.total_changes
        self._run(sql, params)
        return self._connection.total_changes - before

    def query(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """All rows of one reading statement (or of a RETURNING one)."""
        return self._run(sql, params)

    def bulk(self, columns: Sequence[str], rows: Sequence[Sequence[Value]], sql: str) -> int:
        """Run one writing statement for many rows; the number of rows it changed."""
        return (
            self.execute(_with_rows(tuple(columns), sql), (relation.encode(rows),)) if rows else 0
        )

    def lookup(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Value]],
        sql: str,
        answer: Sequence[str],
        keep: str = "",  # noqa: ARG002 - nobody else writes
    ) -> list[list[Any]]:
        """The `answer` columns of one SELECT over the relation `rows`, in no order."""
        if not rows:
            return []
        # One value instead of many rows: each row fetched takes the interpreter lock anew.
        found = self._run(_as_json(tuple(columns), sql, tuple(answer)), (relation.encode(rows),))
        return msgspec.json.decode(found[0][0], type=list[list[Any]])

    def pages(self, sql: str, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of one reading statement, at most `size` at a time."""
        try:
            cursor = self._connection.execute(sql)
            while rows := cursor.fetchmany(size):
                yield rows
        except sqlite3.Error as error:
            raise known(error) or error from error

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """What is written inside is undone where the block raises."""
        self._run("SAVEPOINT work", ())
        try:
            yield
        except BaseException:
            if self.lost is None:
                self._run("ROLLBACK TO work", ())
                self._run("RELEASE work", ())
            raise
        self._run("RELEASE work", ())

    def _run(self, sql: str, params: Sequence[Value]) -> list[tuple[Any, ...]]:
        if self.lost is not None:
            raise self.lost
        try:
            return self._connection.execute(sql, params).fetchall()
        except sqlite3.Error as error:
            meant = known(error)
            if self.open and not self._connection.in_transaction:
                # SQLite gave the whole transaction up: what came before is gone as well, and
                # what comes after must not be written without it.
                self.lost = StateError(f"The store lost its transaction: {error}.")
                raise self.lost from error
            if meant is None:
                raise
            raise meant from error


class SqliteReader(SqliteTx):
    """Reads outside of any transaction; a write is a LogicError."""

    def execute(self, sql: str, params: Sequence[Value] = ()) -> int:
        """Refuse: a read writes nothing."""
        raise LogicError(f"A read must not write: {sql[:40]!r} with {len(params)} values.")

    def _run(self, sql: str, params: Sequence[Value]) -> list[tuple[Any, ...]]:
        return patiently(lambda: super(SqliteReader, self)._run(sql, params))


@lru_cache(maxsize=128)
def _with_rows(columns: tuple[str, ...], sql: str) -> str:
    return f"{_rows(columns)} {sql}"


@lru_cache(maxsize=128)
def _as_json(columns: tuple[str, ...], sql: str, answer: tuple[str, ...]) -> str:
    names = ", ".join(answer)
    return (
        f"{_rows(columns)}, answer ({names}) AS ({sql})"
        f" SELECT json_group_array(json_array({names})) FROM answer"
    )


def _rows(columns: tuple[str, ...]) -> str:
    cells = ", ".join(f"json_extract(value, '$[{index}]')" for index in range(len(columns)))
    return f"WITH rows ({', '.join(columns)}) AS (SELECT {cells} FROM json_each(?))"
