"""What the agent is told from outside."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from fleet.settings import PlatformSettings, is_address, load

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class AgentSettings(PlatformSettings):
    """The agent's environment; `load_settings` reads it."""

    api_url: str = Field(default="https://purpleflea.com", validation_alias="PF_API_URL")
    api_timeout_s: Seconds = Field(default=8.0, validation_alias="PF_API_TIMEOUT_S")
    partitions: Annotated[int, Field(ge=1, le=256, validation_alias="PF_PARTITIONS")] = 16
    window: Annotated[int, Field(ge=2, le=1000, validation_alias="MOMENTUM_WINDOW")] = 20
    threshold: Annotated[Decimal, Field(gt=0, lt=1, validation_alias="MOMENTUM_THRESHOLD")] = (
        Decimal("0.003")
    )
    max_trade_usdc: Annotated[
        Decimal, Field(gt=0, le=1_000_000, validation_alias="MAX_TRADE_USDC")
    ] = Decimal(50)
    leverage: Annotated[Decimal, Field(ge=1, le=100, validation_alias="LEVERAGE")] = Decimal(3)
    max_positions: Annotated[int, Field(ge=1, le=1000, validation_alias="MAX_POSITIONS")] = 3
    tick_max_age_s: Seconds = Field(default=30.0, validation_alias="TICK_MAX_AGE_S")
    order_max_age_s: Seconds = Field(default=120.0, validation_alias="ORDER_MAX_AGE_S")

    @field_validator("api_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if not is_address(value, frozenset({"http", "https"})):
            raise ValueError("write the platform's address, https://host")
        parts = urlsplit(value)
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("write an address without credentials, '?' and '#'")
        return value.rstrip("/")


def load_settings() -> AgentSettings:
    """The settings from the environment. Raises SettingsError, in one sentence, without values."""
    return load(AgentSettings)
