"""Where the store is."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fleet.settings import read_secret

STORE_URL: Final = "sqlite:///.fleet/fleet.sqlite3"


class StoreSettings(BaseSettings):
    """Where the store is. A PostgreSQL `url` that lacks a password has been given it."""

    model_config = SettingsConfigDict(
        extra="ignore", populate_by_name=True, hide_input_in_errors=True, env_ignore_empty=True
    )

    url_file: Path | None = Field(default=None, validation_alias="STORE_URL_FILE")
    password: SecretStr = Field(default=SecretStr(""), validation_alias="STORE_PASSWORD")
    password_file: Path | None = Field(default=None, validation_alias="STORE_PASSWORD_FILE")
    url: str = Field(default="", validation_alias="STORE_URL", validate_default=True, repr=False)

    @field_validator("url")
    @classmethod
    def _whole(cls, url: str, info: ValidationInfo) -> str:
        # In the order of the fields: what is told of files and password is known by now.
        told = info.data
        url = url or read_secret("STORE_URL_FILE", told.get("url_file")) or STORE_URL
        password = told["password"].get_secret_value() or read_secret(
            "STORE_PASSWORD_FILE", told.get("password_file")
        )
        return _with_password(url, password)


def _with_password(url: str, password: str) -> str:
    head, separator, rest = url.partition("://")
    who, at, place = rest.partition("@")
    if not (password and separator and at) or head == "sqlite" or ":" in who:
        return url
    return f"{head}://{who}:{quote(password, safe='')}@{place}"
