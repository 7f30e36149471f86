"""What the agent is told from outside."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fleet.core.errors import SettingsError

KEY_PREFIX: Final = "pf_live_"
_KEY = re.compile(r"pf_live_[A-Za-z0-9_.\-]+\Z")
_AGENT = re.compile(r"[A-Za-z0-9_.\-]{1,128}\Z")

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class AgentSettings(BaseSettings):
    """The agent's environment; `load_settings` reads it."""

    model_config = SettingsConfigDict(
        extra="ignore", populate_by_name=True, frozen=True, hide_input_in_errors=True
    )

    api_url: str = Field(default="https://purpleflea.com", validation_alias="PF_API_URL")
    agent_id: str = Field(default="", validation_alias="PF_AGENT_ID")
    agent_key: SecretStr = Field(default=SecretStr(""), validation_alias="PF_AGENT_KEY")
    agent_key_file: Path | None = Field(default=None, validation_alias="PF_AGENT_KEY_FILE")
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
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
            raise ValueError("write the platform's address, https://host")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("write an address without credentials, '?' and '#'")
        return value.rstrip("/")

    def agent(self) -> str:
        """The agent's id. Raises SettingsError where it is none."""
        if not _AGENT.match(self.agent_id):
            raise SettingsError(
                "No agent: set PF_AGENT_ID to the agent's id (letters, digits, '_', '.' and '-')."
            )
        return self.agent_id

    def key(self) -> str:
        """The platform key. Raises SettingsError where it is none; its value is not repeated."""
        key = (self.agent_key.get_secret_value() or _read(self.agent_key_file)).strip()
        if not key:
            raise SettingsError("No platform key: set PF_AGENT_KEY or PF_AGENT_KEY_FILE.")
        if key.startswith("sk_live_"):
            raise SettingsError(
                "PF_AGENT_KEY is an owner's secret key (sk_live_…); "
                "give the fleet an agent's key (pf_live_…)."
            )
        if not _KEY.match(key):
            raise SettingsError(f"PF_AGENT_KEY is no agent's key; one begins with {KEY_PREFIX}.")
        return key


def load_settings() -> AgentSettings:
    """The settings from the environment. Raises SettingsError, in one sentence, without values."""
    try:
        return AgentSettings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name, reason = first["loc"][0], first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name} is wrong: {reason}.") from None


def _read(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise SettingsError(f"PF_AGENT_KEY_FILE cannot be read: {reason}.") from None
