"""A connection to PostgreSQL: how it is made, and what its errors mean to the fleet."""

from __future__ import annotations

import logging
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
from psycopg import errors
from psycopg.adapt import Dumper
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from fleet.core.errors import FleetError, StateError, StoreError
from fleet.core.redact import redact
from fleet.store.again import OvertakenError

# What it would write to stderr, the error says in one sentence.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

Connection = psycopg.Connection[tuple[Any, ...]]

CONNECT_S: Final = 5
_DEFAULTS: Final = {
    "connect_timeout": str(CONNECT_S),
    "application_name": "flea-fleet",
    # A server whose machine is gone says nothing: without these it would be waited for two hours.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
# What is looked up is looked up by key, and tables grow faster than statistics: a plan that was
# made for an empty journal would read a full one from end to end. What is forbidden counts as so
# dear that the server would compile it first, which takes half a second: hence no jit.
_SETUP: Final = (
    "SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '15s';"
    " SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;"
    " SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off"
)
_WRITER: Final = f"{_SETUP}; SET statement_timeout = '30s'"
_READER: Final = f"{_SETUP}; SET statement_timeout = '5min'; SET default_transaction_read_only = on"

_AGAIN: Final = (errors.SerializationFailure, errors.DeadlockDetected)
_PASSING: Final = ("53", "55", "57", "58", "25006", "25P")
_BROKEN: Final = ("XX001", "XX002")
_WAIT: Final = ("starting up", "shutting down", "recovery", "too many", "slots are reserved")


class Address:
    """Where a PostgreSQL store is. Raises StoreError for a URL that is none; no secret is told."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            given = {key: str(value) for key, value in conninfo_to_dict(url).items() if value}
            self._conninfo = make_conninfo(**{**_DEFAULTS, **given})
        except (ValueError, psycopg.Error):
            raise StoreError(_WRONG) from None
        # libpq ends a password at the first @ or /, and would then print the rest as a name.
        port, name = given.get("port", "5432"), given.get("dbname", "")
        if parts.netloc.count("@") > 1 or "@" in name or not port.replace(",", "").isdigit():
            raise StoreError(_WRONG)
        self._secret = given.get("password", "")
        hosts = given.get("host", given.get("hostaddr", "localhost"))
        self.place = f"{hosts}:{port}/{name or given.get('user', '')}"

    def connect(self, *, writes: bool) -> Connection:
        """A connection, in autocommit; raises what psycopg raises."""
        connection = psycopg.connect(
            self._conninfo,
            autocommit=True,
            prepare_threshold=2,
            cursor_factory=psycopg.RawCursor,
        )
        for kind in (int, bool):
            connection.adapters.register_dumper(kind, _Number)
        try:
            connection.execute(_WRITER if writes else _READER)
        except BaseException:
            connection.close()
            raise
        return connection

    def reason(self, error: Exception) -> str:
        """What an error says, in one line and without the password."""
        said = " ".join(str(error).split()) or type(error).__name__
        if self._secret:
            said = said.replace(self._secret, "***")
        return redact(said).rstrip(".")

    def is_final(self, error: Exception) -> bool:
        """Whether the server answered, and would not answer otherwise in a moment."""
        said = str(error)
        return "FATAL" in said and not any(word in said for word in _WAIT)


def known(error: psycopg.Error, tables: frozenset[str]) -> FleetError | None:
    """The fleet's error for what PostgreSQL reports; None for a mistake in the statement.

    `tables` are the fleet's own: a row that is there twice was written by somebody else just now.
    """
    state = error.sqlstate or ""
    said = error.diag.message_primary or str(error)
    if isinstance(error, _AGAIN) or (
        isinstance(error, errors.UniqueViolation) and error.diag.table_name in tables
    ):
        return OvertakenError()
    if state.startswith(_PASSING):
        return StateError(f"The store cannot be written or read for now: {said}.")
    if state in _BROKEN:
        return StoreError(f"The store is damaged: {said}.")
    return None


class _Number(Dumper):
    """A number whose type is the column's: with one of its own each size would be another plan.

    A truth is 0 or 1, as SQLite has it.
    """

    def dump(self, obj: int) -> bytes:
        return str(int(obj)).encode()


_WRONG: Final = (
    "STORE_URL must be postgresql://user:password@host:5432/database; write special characters of"
    " the password as %40 and the like, or keep it in the file that STORE_PASSWORD_FILE names."
)
