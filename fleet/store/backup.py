"""A store as one file: JSON lines, compressed, that restores into either kind of database.

The first line says what it is. Each table is a line that names it and its columns, and a line for
each row. The last line has the number of rows and the SHA-256 of all before it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from fleet.core.errors import StoreError
from fleet.store import replicas, schema
from fleet.store.api import Tx

FORMAT: Final = 1
PAGE: Final = 2_000
LEFT_OUT: Final = frozenset({"replicas"})
"""Who is at work says so again in a moment."""

Row: TypeAlias = Sequence[Any]


class Dump(Protocol):
    """A database as it stood at one moment; others go on writing."""

    def version(self) -> int:
        """The version of its schema, which may be an older one."""
        ...

    def columns(self, table: str) -> list[str]:
        """The names of a table's columns."""
        ...

    def pages(self, table: str, columns: Sequence[str], size: int) -> Iterator[list[Any]]:
        """All rows of a table, at most `size` at a time."""
        ...


class Keeper(Protocol):
    """What backup and restore need of an engine."""

    @property
    def tx(self) -> Tx:
        """What a restore works with."""
        ...

    def snapshot(self) -> AbstractContextManager[Dump]:
        """The database as it is now."""
        ...

    def begin(self, *, alone: bool) -> None:
        """Begin to write."""
        ...

    def commit(self) -> None:
        """Make it durable."""
        ...

    def rollback(self) -> None:
        """Undo it."""
        ...

    def load(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Add rows to a table, within the transaction."""
        ...

    def loaded(self, table: str) -> None:
        """Let a table that numbers its rows go on after those that were added."""
        ...


class Head(msgspec.Struct, frozen=True):
    """The first line."""

    flea_fleet_backup: int
    schema: int
    at_ms: int


class _Heading(msgspec.Struct, frozen=True):
    table: str
    columns: list[str]


class _End(msgspec.Struct, frozen=True):
    rows: int
    sha256: str


_Line: TypeAlias = Head | _Heading | list[Any]


def write(keeper: Keeper, path: Path, now_ms: int) -> dict[str, int]:
    """Write the store as it is now to `path`, which is whole or is not there; rows by table.

    The store stays as it is, also where its schema is an older one: a backup comes before an
    upgrade. Raises OSError where that cannot be written.
    """
    # One that nobody else has, two backups at once would be one muddle; and readable by its owner
    # alone: bodies and orders stand in it.
    opened, name = tempfile.mkstemp(".part", f".{path.name}.", path.parent)
    part = Path(name)
    try:
        with os.fdopen(opened, "wb") as file:
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=6) as packed:
                counted = _write(keeper, packed, now_ms)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink()
    return counted


def check(path: Path) -> Head:
    """What a backup says of itself, after reading all of it.

    Raises StoreError where it is no backup, is damaged or ends early, or has a newer schema.
    """
    with _opened(path) as lines:
        head, *_ = (line for line in lines if isinstance(line, Head))
    if head.flea_fleet_backup > FORMAT or head.schema > schema.VERSION:
        raise StoreError(
            f"{path} was made by a newer fleet (schema {head.schema}, this one knows up to"
            f" {schema.VERSION}); upgrade the fleet."
        )
    return head


def restore(keeper: Keeper, path: Path, now_ms: int, *, force: bool) -> dict[str, int]:
    """Make the store what the backup at `path` says; rows by table. All of it or nothing.

    Raises StoreError where the backup is none, where the store holds something and `force` is
    not given, and always where replicas are at work.
    """
    check(path)
    keeper.begin(alone=True)
    try:
        _make_room(keeper.tx, now_ms, force=force)
        counted = _load(keeper, path)
        keeper.commit()
    finally:
        keeper.rollback()
    return counted


def kept(version: int = schema.VERSION) -> list[str]:
    """The tables that a backup of this schema has, by name."""
    return sorted(schema.tables(version) - LEFT_OUT)


def _write(keeper: Keeper, file: gzip.GzipFile, now_ms: int) -> dict[str, int]:
    digest, counted = hashlib.sha256(), {}

    def say(lines: Sequence[Any]) -> None:
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        digest.update(data)
        file.write(data)

    with keeper.snapshot() as dump:
        version = dump.version()
        say([Head(FORMAT, version, now_ms)])
        for table in kept(version):
            columns = dump.columns(table)
            say([_Heading(table, columns)])
            counted[table] = 0
            for page in dump.pages(table, columns, PAGE):
                say(page)
                counted[table] += len(page)
    file.write(msgspec.json.encode(_End(sum(counted.values()), digest.hexdigest())) + b"\n")
    return counted


def _make_room(tx: Tx, now_ms: int, *, force: bool) -> None:
    at_work = [each.name for each in replicas.every(tx) if each.is_live(now_ms)]
    if at_work:
        raise StoreError(f"{at_work[0]} is at work on this store; stop the fleet first.")
    full = [name for name in kept() if tx.query(f"SELECT 1 FROM {name} LIMIT 1")]
    if full and not force:
        raise StoreError(
            f"The store is not empty (there is something in {full[0]}); --force replaces it."
        )
    for name in full:
        tx.execute(f"DELETE FROM {name}")


def _load(keeper: Keeper, path: Path) -> dict[str, int]:
    counted: dict[str, int] = {}
    table: _Heading | None = None
    page: list[Any] = []

    def put() -> None:
        if table is not None and page:
            keeper.load(table.table, table.columns, page)
            counted[table.table] = counted.get(table.table, 0) + len(page)
            page.clear()

    with _opened(path) as lines:
        for line in lines:
            if isinstance(line, _Heading):
                put()
                table = line
            elif isinstance(line, list):
                page.append(line)
                if len(page) == PAGE:
                    put()
        put()
    for name in counted:
        keeper.loaded(name)
    return counted


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[_Line]]:
    """The lines of a backup, which raise StoreError where one is wrong or the last is missing."""
    try:
        file = gzip.open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from None
    with file:
        yield _lines(file, path)


def _lines(file: gzip.GzipFile, path: Path) -> Iterator[_Line]:
    digest, rows = hashlib.sha256(), 0
    try:
        first = file.readline()
        digest.update(first)
        yield msgspec.json.decode(first, type=Head)
        for line in file:
            said = msgspec.json.decode(line, type=list[Any] | dict[str, Any])
            if isinstance(said, dict) and "sha256" in said:
                if msgspec.convert(said, _End) != _End(rows, digest.hexdigest()):
                    raise _broken(path)
                return
            digest.update(line)
            rows += isinstance(said, list)
            yield said if isinstance(said, list) else _heading(said, path)
    except (OSError, EOFError, zlib.error, msgspec.MsgspecError):
        raise _broken(path) from None
    raise _broken(path)


def _heading(said: dict[str, Any], path: Path) -> _Heading:
    heading = msgspec.convert(said, _Heading)
    if heading.table not in schema.tables() or not all(map(str.isidentifier, heading.columns)):
        raise _broken(path)
    return heading


def _broken(path: Path) -> StoreError:
    return StoreError(
        f"{path} is no backup of a fleet's store, or not all of one; nothing is done."
    )
