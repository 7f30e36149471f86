"""What commands are told from outside where an option does not say it."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class CommandSettings(BaseSettings):
    """`HANDLERS`: the service, as `--handlers` writes it."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, env_ignore_empty=True)

    handlers: str = Field(default="agent.handlers:service", validation_alias="HANDLERS")
