"""Where the store is."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class StoreSettings(BaseSettings):
    """`STORE_URL`: `sqlite:///relative/path` or `sqlite:////absolute/path`."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True)

    url: str = Field(default="sqlite:///.fleet/fleet.sqlite3", validation_alias="STORE_URL")
