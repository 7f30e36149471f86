"""The store that a URL names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from fleet.core.errors import StoreError
from fleet.store.api import Store
from fleet.store.sqlite import SqliteEngine
from fleet.store.thread import ThreadStore


def open_store(url: str, *, create: bool = True) -> Store:
    """The store at `url`, still to be opened. Raises StoreError for a URL that names none.

    Without `create`, also where nothing has been stored there yet.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise StoreError(_wrong("")) from None
    # sqlite:///a is the relative path a, sqlite:////a the absolute one, as everywhere else.
    path = unquote(parts.path[1:])
    if parts.scheme != "sqlite" or parts.netloc or not path or "\0" in path:
        raise StoreError(_wrong(parts.scheme))
    file = Path(path)
    if not create and not _is_there(file):
        raise StoreError(
            f"There is no store at {file.absolute()}; set STORE_URL to the one that the bridge"
            " and the workers use."
        )
    return ThreadStore(SqliteEngine(file), SqliteEngine(file))


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
    return f"{said} must be sqlite:///relative/path or sqlite:////absolute/path."
