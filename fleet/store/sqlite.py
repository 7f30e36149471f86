"""SQLite in WAL mode with synchronous=FULL: what was committed survives a power cut."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from fleet.core.errors import StateError, StoreError
from fleet.store import schema
from fleet.store.api import Tx
from fleet.store.sqlite_dump import SqliteDump, load
from fleet.store.sqlite_link import BusyError, DamagedError, patiently
from fleet.store.sqlite_schema import migrate, set_up
from fleet.store.sqlite_tx import SqliteReader, SqliteTx

T = TypeVar("T")


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
            patiently(self._prepare)
        except (OSError, sqlite3.Error, StateError, DamagedError) as error:
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
        patiently(lambda: self.tx.query("BEGIN IMMEDIATE"))
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
        return patiently(lambda: work(self.tx))

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
        load(self.tx, table, columns, rows)

    def loaded(self, table: str) -> None:
        """Nothing to be done: SQLite goes on after the highest number by itself."""

    def interrupt(self) -> None:
        """Nothing to be done: no wait here is longer than 10 s."""

    def _connect(self) -> None:
        # No waiting inside SQLite: its handler sleeps up to 100 ms at a time, `patiently` less.
        self._connection = sqlite3.connect(
            self._path, timeout=0, isolation_level=None, cached_statements=256
        )
        self.tx = SqliteTx(self._connection)
        self.reader = SqliteReader(self._connection)

    def _prepare(self) -> None:
        place = str(self._path)
        version = set_up(self.tx, place)
        if not self._writes:
            schema.check(version, place)
            return
        self.begin(alone=True)
        try:
            migrate(self.tx, place)
            self.commit()
        finally:
            self.rollback()


def _cause(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return str(error.__cause__ or error)


def _advice(error: Exception) -> str:
    if isinstance(error, BusyError):
        return "end the process that keeps it locked"
    if isinstance(error, DamagedError):
        return "set STORE_URL to another file, or put a backup in its place with `fleet restore`"
    return "set STORE_URL to a file in a folder that you may write"
