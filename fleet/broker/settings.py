"""Where the broker comes from: the environment's say."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

Kind = Literal["docker", "local"]


class BrokerSettings(BaseSettings):
    """`AMQP_URL`'s broker, else Docker's, else a local one; `FLEET_BROKER` forces one of these."""

    model_config = SettingsConfigDict(populate_by_name=True, env_ignore_empty=True)

    amqp_url: SecretStr | None = Field(default=None, validation_alias="AMQP_URL")
    management_url: str | None = Field(default=None, validation_alias="MANAGEMENT_URL")
    kind: Kind | None = Field(default=None, validation_alias="FLEET_BROKER")
    image: str = Field(default="rabbitmq:4-management", validation_alias="FLEET_RABBITMQ_IMAGE")
    start_timeout: float = Field(
        default=90.0, gt=0, le=3600, validation_alias="FLEET_BROKER_START_TIMEOUT"
    )
