"""Reading settings: what is wrong is one sentence that names the variable and not its value."""

from __future__ import annotations

import os
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from fleet.core.errors import SettingsError

Settings = TypeVar("Settings", bound=BaseSettings)


def load(kind: type[Settings]) -> Settings:
    """The settings of a class, from the environment.

    Raises SettingsError for the first that is missing or wrong.
    """
    try:
        return kind()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"]).upper()
        reason = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name} is wrong: {reason}.") from None


def inherited(*, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Our environment for a child process, but for variables that begin with any of `without`."""
    return {name: value for name, value in os.environ.items() if not name.startswith(without)}
