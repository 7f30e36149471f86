"""A transaction over PostgreSQL, with as few round trips as may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

import msgspec
import psycopg

from fleet.core.errors import FleetError, LogicError
from fleet.store import relation
from fleet.store.again import OvertakenError
from fleet.store.api import Value
from fleet.store.postgres_link import Connection, known

Command = tuple[str, Sequence[Value]]
Cursor = psycopg.Cursor[tuple[Any, ...]]

_PARTS: Final = re.compile(r"'(?:[^']|'')*'|\?")


class PostgresTx:
    """A transaction over PostgreSQL; see `Tx` for what it promises.

    What has no answer (BEGIN, savepoints) is sent together with the next statement that has one.
    """

    alone = False

    def __init__(self, tables: frozenset[str]) -> None:
        self._tables = tables
        self._connection: Connection | None = None
        self._ahead: list[Command] = []
        self.lost: FleetError | None = None
        self.begun = False

    def begin(self, connection: Connection) -> None:
        """Begin over this connection, with the first statement."""
        self._connection, self.lost, self.begun = connection, None, False
        self._ahead = [("BEGIN", ())]

    def execute(self, sql: str, params: Sequence[Value] = ()) -> int:
        """Run one writing statement; the number of rows it changed."""
        return self._run(sql, params).rowcount

    def query(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """All rows of one reading statement (or of a RETURNING one)."""
        cursor = self._run(sql, params)
        return cursor.fetchall() if cursor.description else []

    def bulk(self, columns: Sequence[str], rows: Sequence[Sequence[Value]], sql: str) -> int:
        """Run one writing statement for many rows; the number of rows it changed."""
        if not rows:
            return 0
        whole = _with_rows(tuple(columns), _types(columns, rows), sql)
        return self._run(whole, (relation.encode(rows),)).rowcount

    def lookup(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Value]],
        sql: str,
        answer: Sequence[str],
        keep: str = "",
    ) -> list[list[Any]]:
        """The `answer` columns of one SELECT over the relation `rows`, in no order."""
        if not rows:
            return []
        locked = f"{sql} FOR SHARE OF {keep}" if keep else sql
        whole = _as_json(tuple(columns), _types(columns, rows), locked, tuple(answer))
        found = self._run(whole, (relation.encode(rows),)).fetchall()
        return msgspec.json.decode(found[0][0], type=list[list[Any]])

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """What is written inside is undone where the block raises."""
        mark: Command = ("SAVEPOINT work", ())
        self._ahead.append(mark)
        try:
            yield
        except BaseException:
            if self.lost is None:
                self._undo(mark)
            raise
        self._ahead.append(("RELEASE work", ()))

    def finish(self, *last: Command) -> None:
        """Send what is still to be sent, and then these."""
        self._talk([*self._ahead, *last])

    def _check(self) -> None:
        if self.lost is not None:
            raise self.lost

    def _undo(self, mark: Command) -> None:
        unsent = [index for index, command in enumerate(self._ahead) if command is mark]
        if unsent:
            del self._ahead[unsent[0] :]
        else:
            self._ahead += [("ROLLBACK TO work", ()), ("RELEASE work", ())]

    def _run(self, sql: str, params: Sequence[Value]) -> Cursor:
        self._check()
        command = (numbered(sql), [relation.clean(value) for value in params])
        return self._talk([*self._ahead, command])[-1]

    def _talk(self, commands: Sequence[Command]) -> list[Cursor]:
        """One round trip. Where it fails, what is known of the failure is raised."""
        connection = self._connection
        if connection is None:
            raise LogicError("A transaction begins before its first statement.")
        self._ahead, self.begun = [], True
        try:
            if len(commands) == 1:
                return [connection.execute(*commands[0])]
            with connection.pipeline():
                return [connection.execute(*command) for command in commands]
        except psycopg.Error as error:
            if connection.closed:
                self.lost = OvertakenError("The connection to the store was lost.")
                raise self.lost from error
            meant = known(error, self._tables)
            if isinstance(meant, OvertakenError):
                self.lost = meant
            if meant is None:
                raise
            raise meant from error


class PostgresReader(PostgresTx):
    """Reads outside of any transaction; a write is a LogicError.

    `connected` gives the connection for each statement, or raises StateError.
    """

    def __init__(self, tables: frozenset[str], connected: Callable[[], Connection]) -> None:
        super().__init__(tables)
        self._connected = connected

    def execute(self, sql: str, params: Sequence[Value] = ()) -> int:
        """Refuse: a read writes nothing."""
        raise LogicError(f"A read must not write: {sql[:40]!r} with {len(params)} values.")

    def _check(self) -> None:
        self._connection, self.lost = self._connected(), None


@lru_cache(maxsize=512)
def numbered(sql: str) -> str:
    """A statement with `$1`, `$2`, … for each `?` that stands outside of a text."""
    count = 0

    def mark(found: re.Match[str]) -> str:
        nonlocal count
        if found[0] != "?":
            return found[0]
        count += 1
        return f"${count}"

    return _PARTS.sub(mark, sql)


def _types(columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> tuple[str, ...]:
    return tuple(_type({type(row[index]) for row in rows}) for index in range(len(columns)))


def _type(kinds: set[type]) -> str:
    kinds -= {type(None)}
    if kinds == {int}:
        return "bigint"
    if kinds == {bool}:
        return "boolean::integer"
    return "double precision" if kinds and kinds <= {int, float} else "text"


@lru_cache(maxsize=256)
def _with_rows(columns: tuple[str, ...], types: tuple[str, ...], sql: str) -> str:
    return f"{_rows(columns, types)} {numbered(sql)}"


@lru_cache(maxsize=256)
def _as_json(
    columns: tuple[str, ...], types: tuple[str, ...], sql: str, answer: tuple[str, ...]
) -> str:
    names = ", ".join(answer)
    return (
        f"{_rows(columns, types)}, answer ({names}) AS ({numbered(sql)})"
        f" SELECT coalesce(json_agg(json_build_array({names})), '[]')::text FROM answer"
    )


def _rows(columns: tuple[str, ...], types: tuple[str, ...]) -> str:
    cells = ", ".join(f"(value ->> {index})::{kind}" for index, kind in enumerate(types))
    return (
        f"WITH rows ({', '.join(columns)}) AS"
        f" (SELECT {cells} FROM jsonb_array_elements($1::jsonb) AS cells (value))"
    )
