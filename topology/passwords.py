"""The passwords of the broker's users: a folder with one file for each, named as the user."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fleet.core.errors import SettingsError

LONGEST: Final = 1024
SHORTEST: Final = 8
RANDOM_BYTES: Final = 24


def read(folder: Path, users: Iterable[str], *, generate: bool = False) -> dict[str, str]:
    """The password of each user; with `generate` a random one is written where there is none.

    A generated one has no character that a URL would have to spell otherwise. Raises
    SettingsError, without any value, for what is missing, empty, or cannot be read or written.
    """
    wanted = list(users)
    missing = [user for user in wanted if not (folder / user).exists()]
    if missing and not generate:
        raise SettingsError(
            f"There is no password for {', '.join(missing)} in {folder}; write a file for each,"
            " named as the user, or add --generate."
        )
    for user in missing:
        _write(folder / user, secrets.token_urlsafe(RANDOM_BYTES))
    return {user: _read(folder / user) for user in wanted}


def _write(file: Path, password: str) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Nobody else may read it, not even between its making and a later chmod.
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "w", encoding="utf-8") as target:
            target.write(f"{password}\n")
    except OSError as error:
        raise SettingsError(f"Cannot write {file}: {error.strerror}.") from None


def _read(file: Path) -> str:
    try:
        password = file.read_bytes()[: LONGEST + 1].decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise SettingsError(f"Cannot read {file}: {reason}.") from None
    if not SHORTEST <= len(password) <= LONGEST:
        raise SettingsError(
            f"{file} holds no password: write {SHORTEST} to {LONGEST} characters, or remove it and"
            " add --generate."
        )
    return password
