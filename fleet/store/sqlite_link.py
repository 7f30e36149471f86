"""What SQLite reports, as the fleet means it, and the wait for another process's lock."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from typing import Final, TypeVar

from fleet.core.errors import FleetError, StateError, StoreError

T = TypeVar("T")

PATIENCE_S: Final = 10.0
"""How long a locked database is waited for."""

_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PASSING: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)
_BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class BusyError(StateError):
    """The store is locked by another process; try again."""


class DamagedError(StoreError):
    """The store is damaged or no database."""


def known(error: sqlite3.Error) -> FleetError | None:
    """The fleet's error for what SQLite reports; None for a mistake in the statement."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _BUSY:
        return BusyError()
    if code in _PASSING:
        return StateError(f"The store cannot be written or read for now: {error}.")
    if code in _BROKEN:
        return DamagedError(f"The store is damaged or no database: {error}.")
    return None


def patiently(call: Callable[[], T]) -> T:
    """The result of `call`, tried again for 10 s while another process has the database locked."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except BusyError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(random.uniform(0.0002, 0.003))  # noqa: S311 - jitter, no secret
