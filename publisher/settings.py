"""What the bridge is told from outside."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fleet.core.errors import SettingsError
from fleet.settings import load

KEY_PREFIX: Final = "pf_live_"
_KEY = re.compile(r"pf_live_[A-Za-z0-9_.\-]+\Z")
_AGENT = re.compile(r"[A-Za-z0-9_.\-]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the bridge holds, and how long it takes its time."""

    partitions: int = 16
    """Lanes of a service; the same number as in the topology."""
    unsettled: int = 1024
    """Frames held until the broker has answered."""
    unsaved: int = 20_000
    """Settled frames held (without their bodies) until the store has the cursor."""
    save_every_s: float = 0.2
    """How often the cursor is saved."""
    grace_s: float = 10.0
    """How long a stop request waits for what is in flight."""


class BridgeSettings(BaseSettings):
    """The bridge's environment; `load_settings` reads it."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True)

    amqp_url: str = Field(default="amqp://guest:guest@127.0.0.1:5672/", validation_alias="AMQP_URL")
    stream_url: str = Field(
        default="wss://purpleflea.com/api/stream", validation_alias="PF_STREAM_URL"
    )
    agent_id: str = Field(default="", validate_default=True, validation_alias="PF_AGENT_ID")
    agent_key: SecretStr = Field(default=SecretStr(""), validation_alias="PF_AGENT_KEY")
    agent_key_file: Path | None = Field(default=None, validation_alias="PF_AGENT_KEY_FILE")
    topics: str = Field(default="*", validation_alias="PF_TOPICS")
    partitions: Annotated[int, Field(ge=1, le=256, validation_alias="PF_PARTITIONS")] = 16
    window: Annotated[int, Field(ge=1, le=65_536, validation_alias="PF_WINDOW")] = 512
    silence_s: Annotated[float, Field(gt=0, validation_alias="PF_SILENCE_S")] = 60.0
    lease_ttl_s: Annotated[float, Field(ge=0.5, le=300, validation_alias="PF_LEASE_TTL_S")] = 5.0
    grace_s: Annotated[float, Field(ge=0, le=600, validation_alias="PF_GRACE_S")] = 10.0

    @field_validator("stream_url")
    @classmethod
    def _is_websocket(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"ws", "wss"} or not parts.hostname or parts.port == 0:
            raise ValueError("write a WebSocket address, wss://host/path")
        return value

    @field_validator("agent_id")
    @classmethod
    def _is_agent(cls, value: str) -> str:
        if not _AGENT.match(value):
            raise ValueError("write the agent's id: letters, digits, '_', '.' and '-'")
        return value

    def key(self) -> str:
        """The platform key. Raises SettingsError where it is none; its value is not repeated."""
        key = self.agent_key.get_secret_value() or _read(self.agent_key_file)
        key = key.strip()
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

    def topic_list(self) -> list[str]:
        """The topics to subscribe to."""
        return [topic.strip() for topic in self.topics.split(",") if topic.strip()] or ["*"]

    def limits(self) -> Limits:
        """The bridge's limits."""
        unsettled = max(2 * self.window, 16)
        return Limits(partitions=self.partitions, unsettled=unsettled, grace_s=self.grace_s)


def load_settings() -> BridgeSettings:
    """The settings from the environment. Raises SettingsError, in one sentence, without values."""
    return load(BridgeSettings)


def _read(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise SettingsError(f"PF_AGENT_KEY_FILE cannot be read: {reason}.") from None
