"""SQLite in WAL mode with synchronous=FULL: what was committed survives a power cut."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from fleet.core.errors import FleetError, LogicError, StateError, StoreError
from fleet.store import relation, schema
from fleet.store.api import Tx, Value

T = TypeVar("T")

PATIENCE_S: Final = 10.0
"""How long a locked database is waited for."""

_SETUP: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16000",
    "PRAGMA journal_size_limit = 67108864",
)
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PASSING: Final = _BUSY | {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}
_BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


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
            raise _known(error) or error from error

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
            known = _known(error)
            if self.open and not self._connection.in_transaction:
                # SQLite gave the whole transaction up: what came before is gone as well, and
                # what comes after must not be written without it.
                self.lost = StateError(f"The store lost its transaction: {error}.")
                raise self.lost from error
            if known is None:
                raise
            raise known from error


class SqliteReader(SqliteTx):
    """Reads outside of any transaction; a write is a LogicError."""

    def execute(self, sql: str, params: Sequence[Value] = ()) -> int:
        """Refuse: a read writes nothing."""
        raise LogicError(f"A read must not write: {sql[:40]!r} with {len(params)} values.")

    def _run(self, sql: str, params: Sequence[Value]) -> list[tuple[Any, ...]]:
        return _patiently(lambda: super(SqliteReader, self)._run(sql, params))


class SqliteEngine:
    """A SQLite file as the owner thread drives it; without `writes` it is left as it is."""

    tx: SqliteTx
    reader: SqliteTx

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self._path = path
        self._writes = writes
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open or create the file; raises StoreError, one sentence, where that cannot be."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connect()
            _patiently(self._prepare)
        except (OSError, sqlite3.Error, StateError, _DamagedError) as error:
            self.close()
            raise StoreError(
                f"The store {self._path} cannot be opened ({_cause(error)}); {_advice(error)}."
            ) from error
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file; raises nothing."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def begin(self, *, alone: bool) -> None:  # noqa: ARG002 - SQLite has one writer at a time
        """Become the one writer, waiting 10 s for others; then StateError."""
        self.tx.lost = None
        _patiently(lambda: self.tx.query("BEGIN IMMEDIATE"))
        self.tx.open = True

    def commit(self) -> None:
        """Make it durable; raises StateError where it is lost."""
        self.tx.query("COMMIT")
        self.tx.open = False

    def rollback(self) -> None:
        """Undo everything since `begin`; raises nothing."""
        self.tx.open = False
        if self._connection is not None and self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def at_once(self, work: Callable[[Tx], T]) -> T:
        """Do one statement as a transaction of its own, waiting 10 s for other writers."""
        self.tx.lost = None
        return _patiently(lambda: work(self.tx))

    @contextmanager
    def snapshot(self) -> Iterator[SqliteDump]:
        """The database as it is now, while others go on writing."""
        self.tx.query("BEGIN")
        try:
            yield SqliteDump(self.tx)
        finally:
            self.rollback()

    def load(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add rows to a table, within the transaction; StoreError where they do not fit."""
        marks = ", ".join("?" * len(columns))
        try:
            for row in rows:
                self.tx.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", row)
        except sqlite3.Error as error:
            raise StoreError(f"The rows of {table} cannot be stored: {error}.") from error

    def loaded(self, table: str) -> None:
        """Nothing to be done: SQLite goes on after the highest number by itself."""

    def interrupt(self) -> None:
        """Nothing to be done: no wait here is longer than 10 s."""

    def _connect(self) -> None:
        # No waiting inside SQLite: its handler sleeps up to 100 ms at a time, `_patiently` less.
        self._connection = sqlite3.connect(
            self._path, timeout=0, isolation_level=None, cached_statements=256
        )
        self.tx = SqliteTx(self._connection)
        self.reader = SqliteReader(self._connection)

    def _prepare(self) -> None:
        tables = {name for (name,) in self.tx.query("SELECT name FROM sqlite_master")}
        if tables and "schema_version" not in tables:
            raise StoreError(
                f"{self._path} is a database of something else; set STORE_URL to another file."
            )
        if self.tx.query("PRAGMA journal_mode = WAL") != [("wal",)]:
            raise StoreError(f"{self._path} is on a file system without WAL; use a local disk.")
        for pragma in _SETUP:
            self.tx.query(pragma)
        if not self._writes:
            self._check(_version(self.tx) if tables else 0)
            return
        self.begin(alone=True)
        try:
            self._migrate()
            self.commit()
        finally:
            self.rollback()

    def _migrate(self) -> None:
        self.tx.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
        version = _version(self.tx)
        self._check(version or schema.VERSION)
        serial = "INTEGER PRIMARY KEY"
        for statement in schema.statements(version, keyed=" WITHOUT ROWID", serial=serial):
            self.tx.execute(statement)
        if version < schema.VERSION:
            self.tx.execute("INSERT INTO schema_version (version) VALUES (?)", (schema.VERSION,))

    def _check(self, version: int) -> None:
        if not version:
            raise StoreError(
                f"There is no store in {self._path}; set STORE_URL to the one that the bridge and"
                " the workers use."
            )
        if version > schema.VERSION:
            raise StoreError(
                f"The store {self._path} has schema {version}, this fleet knows up to"
                f" {schema.VERSION}; upgrade the fleet or set STORE_URL to another store."
            )


class SqliteDump:
    """What a read transaction sees."""

    def __init__(self, tx: SqliteTx) -> None:
        self._tx = tx

    def version(self) -> int:
        """The version of its schema."""
        return _version(self._tx)

    def columns(self, table: str) -> list[str]:
        """The names of a table's columns."""
        return [
            name for (name,) in self._tx.query("SELECT name FROM pragma_table_info(?)", (table,))
        ]

    def pages(self, table: str, columns: Sequence[str], size: int) -> Iterator[list[Any]]:
        """All rows of a table, at most `size` at a time."""
        yield from self._tx.pages(f"SELECT {', '.join(columns)} FROM {table}", size)


def _version(tx: SqliteTx) -> int:
    return int(tx.query("SELECT coalesce(max(version), 0) FROM schema_version")[0][0])


class _BusyError(StateError):
    """The store is locked by another process; try again."""


class _DamagedError(StoreError):
    """The store is damaged or no database."""


def _patiently(call: Callable[[], T]) -> T:
    """The result of `call`, tried again while another process has the database locked."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except _BusyError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(random.uniform(0.0002, 0.003))  # noqa: S311 - jitter, no secret


def _known(error: sqlite3.Error) -> FleetError | None:
    """The fleet's error for what SQLite reports; None for a mistake in the statement."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _BUSY:
        return _BusyError()
    if code in _PASSING:
        return StateError(f"The store cannot be written or read for now: {error}.")
    if code in _BROKEN:
        return _DamagedError(f"The store is damaged or no database: {error}.")
    return None


def _cause(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return str(error.__cause__ or error)


def _advice(error: Exception) -> str:
    if isinstance(error, _BusyError):
        return "end the process that keeps it locked"
    return "set STORE_URL to a file in a folder that you may write"


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
