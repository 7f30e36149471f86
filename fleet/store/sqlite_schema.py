"""How a SQLite file becomes a store of this version, or is refused."""

from __future__ import annotations

from typing import Final

from fleet.core.errors import StoreError
from fleet.store import schema
from fleet.store.sqlite_tx import SqliteTx

_SETUP: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16000",
    "PRAGMA journal_size_limit = 67108864",
)


def set_up(tx: SqliteTx, place: str) -> int:
    """Set the connection up; the version of what is there, 0 where there is nothing yet.

    Raises StoreError where the file is a database of something else, or cannot be kept safe.
    """
    tables = {name for (name,) in tx.query("SELECT name FROM sqlite_master")}
    if tables and "schema_version" not in tables:
        raise StoreError(f"{place} is a database of something else; set STORE_URL to another file.")
    if tx.query("PRAGMA journal_mode = WAL") != [("wal",)]:
        raise StoreError(f"{place} is on a file system without WAL; use a local disk.")
    for pragma in _SETUP:
        tx.query(pragma)
    return version_of(tx) if tables else 0


def migrate(tx: SqliteTx, place: str) -> None:
    """Bring the schema up to date, within the transaction. Raises StoreError where it is newer."""
    tx.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
    version = version_of(tx)
    schema.check(version or schema.VERSION, place)
    serial = "INTEGER PRIMARY KEY"
    for statement in schema.statements(version, keyed=" WITHOUT ROWID", serial=serial):
        tx.execute(statement)
    if version < schema.VERSION:
        tx.execute("INSERT INTO schema_version (version) VALUES (?)", (schema.VERSION,))


def version_of(tx: SqliteTx) -> int:
    """The version of a store's schema; 0 where it has none yet."""
    return int(tx.query("SELECT coalesce(max(version), 0) FROM schema_version")[0][0])
