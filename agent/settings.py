"""What the agent is told from outside."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator

from fleet.settings import PlatformSettings, check_safe, is_address, load

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]

Money = Annotated[Decimal, Field(gt=0, le=1_000_000_000)]


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
    quiet_s: Seconds = Field(default=60.0, validation_alias="PF_QUIET_S")
    order_endpoint: Literal["open", "trade"] = Field(
        default="open", validation_alias="PF_ORDER_ENDPOINT"
    )
    strategy: str = Field(default="agent.momentum:Momentum", validation_alias="STRATEGY")
    candle_strategy: str = Field(default="", validation_alias="CANDLE_STRATEGY")
    paper: bool = Field(default=False, validation_alias="PAPER")
    capital_usdc: Money | None = Field(default=None, validation_alias="CAPITAL_USDC")
    min_balance_usdc: Annotated[
        Decimal, Field(ge=0, le=1_000_000_000, validation_alias="MIN_BALANCE_USDC")
    ] = Decimal(1)
    max_drawdown: Annotated[Decimal, Field(gt=0, le=1, validation_alias="MAX_DRAWDOWN")] = Decimal(
        "0.2"
    )
    max_feed_age_s: Seconds = Field(default=60.0, validation_alias="MAX_FEED_AGE_S")
    mode_steady_s: Seconds = Field(default=10.0, validation_alias="MODE_STEADY_S")
    breaker_failures: Annotated[int, Field(ge=1, le=1000, validation_alias="BREAKER_FAILURES")] = 5
    breaker_open_s: Seconds = Field(default=60.0, validation_alias="BREAKER_OPEN_S")

    def capital(self) -> Decimal:
        """What a drawdown is a fraction of: CAPITAL_USDC, else the most that can be at stake."""
        return self.capital_usdc or self.max_trade_usdc * self.max_positions

    @field_validator("api_url")
    @classmethod
    def _is_address(cls, value: str, info: ValidationInfo) -> str:
        if not is_address(value, frozenset({"http", "https"})):
            raise ValueError("write the platform's address, https://host")
        parts = urlsplit(value)
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("write an address without credentials, '?' and '#'")
        check_safe(value, insecure=info.data.get("insecure", False))
        return value.rstrip("/")


def load_settings() -> AgentSettings:
    """The settings from the environment. Raises SettingsError, in one sentence, without values."""
    return load(AgentSettings)


def trade_on_paper() -> None:
    """Let whatever reads the settings from now on, in a child process too, trade on paper."""
    os.environ["PAPER"] = "1"
