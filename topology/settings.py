"""Where the broker is."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class TopologySettings(BaseSettings):
    """`AMQP_URL`, and `MANAGEMENT_URL` where the management API is not on its usual port."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, env_ignore_empty=True)

    amqp_url: str = Field(
        default="amqp://guest:guest@127.0.0.1:5672/", validation_alias="AMQP_URL", repr=False
    )
    management_url: str | None = Field(default=None, validation_alias="MANAGEMENT_URL", repr=False)
