"""The store that a URL names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from fleet.core.errors import StoreError
from fleet.store import schema
from fleet.store.api import Store
from fleet.store.backup import Keeper
from fleet.store.thread import ThreadStore

if TYPE_CHECKING:
    from fleet.store.postgres import PostgresEngine
    from fleet.store.sqlite import SqliteEngine

POSTGRESQL: Final = ("postgresql", "postgres")


def open_store(url: str, *, create: bool = True) -> Store:
    """The store at `url`, still to be opened. Raises StoreError for a URL that names none.

    Without `create`, it or its `open` raises also where nothing has been stored there yet.
    """
    return ThreadStore(_engine(url, create=create), _engine(url, create=create, writes=False))


@contextmanager
def keeper(url: str, *, create: bool) -> Iterator[Keeper]:
    """The database at `url`, opened for a backup or a restore. Raises StoreError."""
    engine = _engine(url, create=create, writes=create)
    engine.open()
    try:
        yield engine
    finally:
        engine.close()


def place_of(url: str) -> str:
    """Where the store of a good URL is, for a person to read: an absolute path, or a server."""
    if _scheme(url) not in POSTGRESQL:
        return str(_file(url).absolute())
    return _postgresql()(url, writes=False).place


def folder_of(url: str) -> Path | None:
    """The folder of the file that the store of a good URL is in; None where it is a server's."""
    return None if _scheme(url) in POSTGRESQL else _file(url).absolute().parent


def _engine(url: str, *, create: bool, writes: bool = True) -> PostgresEngine | SqliteEngine:
    if _scheme(url) in POSTGRESQL:
        return _postgresql()(url, writes=writes, create=create)
    file = _file(url)
    if not create and not _is_there(file):
        raise schema.nothing_at(str(file.absolute()))
    from fleet.store import sqlite  # noqa: PLC0415 - a fleet on PostgreSQL needs none of it

    return sqlite.SqliteEngine(file, writes=writes)


def _postgresql() -> type[PostgresEngine]:
    try:
        from fleet.store import postgres  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise StoreError(
            f"PostgreSQL needs one more package ({error}); pip install 'flea-fleet[postgres]'."
        ) from None
    return postgres.PostgresEngine


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError:
        raise StoreError(_wrong("")) from None


def _file(url: str) -> Path:
    parts = urlsplit(url)
    # sqlite:///a is the relative path a, sqlite:////a the absolute one, as everywhere else.
    path = unquote(parts.path[1:])
    if parts.scheme != "sqlite" or parts.netloc or not path or "\0" in path:
        raise StoreError(_wrong(parts.scheme))
    return Path(path)


def _is_there(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # opening it will say why
        return True


def _wrong(scheme: str) -> str:
    # Only the scheme: the rest of a wrong URL may hold a password.
    said = f"STORE_URL begins with {scheme!r} but" if scheme not in ("", "sqlite") else "STORE_URL"
    return (
        f"{said} must be sqlite:///relative/path, sqlite:////absolute/path or"
        " postgresql://user:password@host:5432/database."
    )
