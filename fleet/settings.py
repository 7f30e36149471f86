"""Reading settings: what is wrong is one sentence that names the variable and not its value."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from fleet.core.errors import SettingsError

KEY_PREFIX: Final = "pf_live_"
KEY_FILE_BYTES: Final = 4096
_KEY = re.compile(r"pf_live_[A-Za-z0-9_.\-]+\Z")
_AGENT = re.compile(r"[A-Za-z0-9_.\-]{1,128}\Z")

Settings = TypeVar("Settings", bound=BaseSettings)


class PlatformSettings(BaseSettings):
    """Who we are at the platform: the agent's id, and its key or the file that holds it."""

    model_config = SettingsConfigDict(
        extra="ignore", populate_by_name=True, frozen=True, hide_input_in_errors=True
    )

    agent_id: str = Field(default="", validation_alias="PF_AGENT_ID")
    agent_key: SecretStr = Field(default=SecretStr(""), validation_alias="PF_AGENT_KEY")
    agent_key_file: Path | None = Field(default=None, validation_alias="PF_AGENT_KEY_FILE")

    def agent(self) -> str:
        """The agent's id. Raises SettingsError where it is none."""
        if not self.agent_id:
            raise SettingsError("PF_AGENT_ID is missing; set it to the agent's id.")
        if not _AGENT.match(self.agent_id):
            raise SettingsError(
                "PF_AGENT_ID is wrong: write the agent's id: letters, digits, '_', '.' and '-'."
            )
        return self.agent_id

    def key(self) -> str:
        """The platform key. Raises SettingsError where it is none; its value is not repeated."""
        name, key = "PF_AGENT_KEY", self.agent_key.get_secret_value().strip()
        # An empty variable is no file: compose files pass on what is not set as "".
        if not key and self.agent_key_file not in (None, Path()):
            name, key = "PF_AGENT_KEY_FILE", _read(self.agent_key_file)
        if not key:
            raise SettingsError("PF_AGENT_KEY is missing; set it or PF_AGENT_KEY_FILE.")
        if key.startswith("sk_live_"):
            raise SettingsError(
                f"{name} has an owner's secret key (sk_live_…); "
                f"give the fleet an agent's key ({KEY_PREFIX}…)."
            )
        if not _KEY.match(key):
            raise SettingsError(f"{name} has no agent's key; one begins with {KEY_PREFIX}.")
        return key


def load(kind: type[Settings]) -> Settings:
    """The settings of a class, from the environment.

    Raises SettingsError for the first that is missing or wrong.
    """
    try:
        return kind()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = _variable(kind, str(first["loc"][0]) if first["loc"] else "")
        if first["type"] == "missing":
            raise SettingsError(f"{name} is missing; set it.") from None
        reason = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name} is wrong: {reason}.") from None


def is_address(text: str, schemes: frozenset[str]) -> bool:
    """Whether it is a URL of one of these schemes with a host, and with a port that can be."""
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its text would repeat what was written
        return False


def inherited(*, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Our environment for a child process, but for variables that begin with any of `without`."""
    return {name: value for name, value in os.environ.items() if not name.startswith(without)}


def _variable(kind: type[BaseSettings], name: str) -> str:
    """The name that a user writes: the field's alias where it has one."""
    field = kind.model_fields.get(name)
    alias = field.validation_alias if field else None
    prefix = (kind.model_config.get("env_prefix") or "") if field else ""
    return (alias if isinstance(alias, str) else prefix + name).upper()


def _read(path: Path | None) -> str:
    try:
        with Path(path or "").open("rb") as file:
            content = file.read(KEY_FILE_BYTES + 1)
        if len(content) > KEY_FILE_BYTES:
            raise SettingsError(
                f"PF_AGENT_KEY_FILE names a file of more than {KEY_FILE_BYTES} bytes;"
                " name one that holds the key alone."
            )
        return content.decode("utf-8").strip()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise SettingsError(f"PF_AGENT_KEY_FILE cannot be read: {reason}.") from None
