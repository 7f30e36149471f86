"""PostgreSQL: a store for a fleet on several machines."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors

from fleet.core.backoff import backoff
from fleet.core.errors import FleetError, StateError, StoreError
from fleet.store import schema
from fleet.store.again import OvertakenError
from fleet.store.api import Tx
from fleet.store.postgres_dump import PostgresDump, load, loaded
from fleet.store.postgres_link import Address, Connection
from fleet.store.postgres_marks import Marks
from fleet.store.postgres_schema import bring_up, lock_of, version_of
from fleet.store.postgres_tx import PostgresReader, PostgresTx

T = TypeVar("T")

PATIENCE_S: Final = 10.0
"""How long a server that does not answer is waited for at the start."""


class PostgresEngine:
    """A PostgreSQL database as the owner thread drives it.

    It connects again whenever it must. A commit whose answer was lost is looked up by its mark.
    """

    def __init__(self, url: str, *, writes: bool, create: bool = True) -> None:
        self._address = Address(url)
        self._writes = writes
        self._create = create
        self._connection: Connection | None = None
        self._stopping = threading.Event()
        self._delays = _delays()
        self._not_before = 0.0
        self._marks = Marks()
        self._lock = 0
        tables = schema.tables()
        self.tx = PostgresTx(tables)
        self.reader = PostgresReader(tables, self._connected)

    @property
    def place(self) -> str:
        """Where it is, for a person to read."""
        return self._address.place

    def open(self) -> None:
        """Connect and bring the schema up to date; StoreError where a person must act."""
        try:
            self._connection = self._first()
            if self._writes:
                bring_up(self._connection, create=self._create)
            schema.check(version_of(self._connection), self.place)
            self._lock = lock_of(self._connection)
            self._enter(self._connection)
        except psycopg.Error as error:
            self.close()
            raise StoreError(self._cannot_open(error)) from error
        except FleetError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the database; raises nothing."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                if self._writes and not self._connection.closed:
                    self._marks.leave(self._connection)
            self._drop()

    def interrupt(self) -> None:
        """Wait for no answer any longer."""
        self._stopping.set()
        connection = self._connection
        if connection is not None:
            with (
                suppress(OSError, psycopg.Error),
                socket.socket(fileno=os.dup(connection.fileno())) as line,
            ):
                line.shutdown(socket.SHUT_RDWR)

    def begin(self, *, alone: bool) -> None:
        """Begin; `alone`: when nobody else does, waiting 10 s for others, then StateError."""
        self.tx.begin(self._connected())
        if alone:
            self.tx.query("SELECT pg_advisory_xact_lock(?)", (self._lock,))

    def commit(self) -> None:
        """Make it durable; raises StateError where it is lost."""
        if self.tx.lost is not None:
            raise self.tx.lost
        if not self.tx.begun:
            return
        try:
            self.tx.finish(self._marks.next(), ("COMMIT", ()))
        except errors.DivisionByZero:
            self._drop()  # its mark was cleared away; the next connection makes another
            raise OvertakenError from None
        except StateError:
            is_told = self._connection is not None and not self._connection.closed
            if is_told or not self._is_committed():
                raise

    def rollback(self) -> None:
        """Undo everything since `begin`; raises nothing."""
        connection = self._connection
        if connection is None or not self.tx.begun:
            return
        try:
            if not connection.closed:
                connection.execute("ROLLBACK")
        except psycopg.Error:
            self._drop()

    def at_once(self, work: Callable[[Tx], T]) -> T:
        """Do `work` as a transaction of its own; None: undo it."""
        try:
            self.begin(alone=False)
            result = work(self.tx)
            if result is None:
                self.rollback()
            else:
                self.commit()
        except BaseException:
            self.rollback()
            raise
        return result

    @contextmanager
    def snapshot(self) -> Iterator[PostgresDump]:
        """The database as it is now, while others go on writing.

        Raises StoreError where it goes away meanwhile.
        """
        try:
            dump = PostgresDump(self._connected())
            dump.begin()
            yield dump
        except psycopg.Error as error:
            reason = self._address.reason(error)
            raise StoreError(f"The store at {self.place} cannot be read ({reason}).") from error
        finally:
            self._drop()

    def load(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add rows to a table, within the transaction; StoreError where they do not fit."""
        load(self._connected(), table, columns, rows)

    def loaded(self, table: str) -> None:
        """Let a table that numbers its rows go on after those that were added."""
        loaded(self._connected(), table)

    def _connected(self) -> Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        self._drop()
        left = self._not_before - time.monotonic()
        if left > 0 or self._stopping.is_set():
            raise StateError(f"The store at {self.place} is away.")
        try:
            connection = self._address.connect(writes=self._writes)
            self._enter(connection)
        except psycopg.Error as error:
            self._not_before = time.monotonic() + next(self._delays)
            reason = self._address.reason(error)
            raise StateError(f"The store at {self.place} is away: {reason}.") from error
        self._delays, self._connection = _delays(), connection
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def _enter(self, connection: Connection) -> None:
        if self._writes:
            self._marks.enter(connection)

    def _is_committed(self) -> bool:
        """Whether the commit with the last number was made; it is not made any more after this."""
        while not self._stopping.wait(0.05):
            try:
                return self._marks.is_taken(self._connected())
            except psycopg.Error:
                self._drop()
            except StateError:
                continue
        raise StateError("The store went away amid a commit; whether it was made is not known.")

    def _first(self) -> Connection:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._address.connect(writes=self._writes)
            except psycopg.OperationalError as error:
                late = time.monotonic() >= deadline or self._stopping.wait(0.2)
                if late or self._address.is_final(error):
                    raise

    def _cannot_open(self, error: psycopg.Error) -> str:
        place, reason = self.place, self._address.reason(error)
        if isinstance(error, errors.InsufficientPrivilege):
            advice = "give the fleet a database or a schema where it may create tables"
        elif isinstance(error, errors.DuplicateTable | errors.UndefinedColumn):
            advice = "something else has these tables; give the fleet a database of its own"
        else:
            advice = "see that it runs, and that STORE_URL names it"
        return f"The store at {place} cannot be opened ({reason}); {advice}."


def _delays() -> Iterator[float]:
    return backoff(random.uniform, first=0.1, cap=2.0)
