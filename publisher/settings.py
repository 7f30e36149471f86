"""What the bridge is told from outside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator

from fleet.core.events import MAX_BYTES
from fleet.settings import (
    AmqpSettings,
    PlatformSettings,
    SigningSettings,
    check_safe,
    is_address,
    load,
)


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
    most_bytes: int = MAX_BYTES
    """A larger frame is quarantined without being read."""


class BridgeSettings(PlatformSettings, AmqpSettings, SigningSettings):
    """The bridge's environment; `load_settings` reads it."""

    stream_url: str = Field(
        default="wss://purpleflea.com/api/stream", validation_alias="PF_STREAM_URL"
    )
    topics: str = Field(default="*", validation_alias="PF_TOPICS")
    partitions: Annotated[int, Field(ge=1, le=256, validation_alias="PF_PARTITIONS")] = 16
    window: Annotated[int, Field(ge=1, le=65_536, validation_alias="PF_WINDOW")] = 512
    silence_s: Annotated[float, Field(gt=0, validation_alias="PF_SILENCE_S")] = 60.0
    lease_ttl_s: Annotated[float, Field(ge=0.5, le=300, validation_alias="PF_LEASE_TTL_S")] = 5.0
    grace_s: Annotated[float, Field(ge=0, le=600, validation_alias="PF_GRACE_S")] = 10.0
    max_event_bytes: Annotated[
        int, Field(ge=1024, le=MAX_BYTES, validation_alias="MAX_EVENT_BYTES")
    ] = MAX_BYTES
    api_url: str = Field(default="", validation_alias="PF_API_URL")
    fill_s: Annotated[float, Field(ge=0, le=86_400, validation_alias="PRICE_FILL_S")] = 60.0
    health_s: Annotated[int, Field(ge=0, le=86_400, validation_alias="CLOCK_HEALTH_S")] = 300
    reconcile_s: Annotated[int, Field(ge=0, le=86_400, validation_alias="CLOCK_RECONCILE_S")] = 600
    schedules: Path | None = Field(default=None, validation_alias="SCHEDULES_FILE")

    @field_validator("stream_url")
    @classmethod
    def _is_websocket(cls, value: str, info: ValidationInfo) -> str:
        if not is_address(value, frozenset({"ws", "wss"})):
            raise ValueError("write a WebSocket address, wss://host/path")
        check_safe(value, insecure=info.data.get("insecure", False))
        return value

    @field_validator("api_url")
    @classmethod
    def _is_address(cls, value: str, info: ValidationInfo) -> str:
        if value and not is_address(value, frozenset({"http", "https"})):
            raise ValueError("write the platform's address, https://host")
        check_safe(value, insecure=info.data.get("insecure", False))
        return value.rstrip("/")

    def prices_url(self) -> str:
        """Where prices are asked for: PF_API_URL, or else at the host of the stream."""
        stream = urlsplit(self.stream_url)
        scheme = "https" if stream.scheme == "wss" else "http"
        return self.api_url or f"{scheme}://{stream.netloc.rpartition('@')[2]}"

    def topic_list(self) -> list[str]:
        """The topics to subscribe to."""
        return [topic.strip() for topic in self.topics.split(",") if topic.strip()] or ["*"]

    def limits(self) -> Limits:
        """The bridge's limits."""
        unsettled = max(2 * self.window, 16)
        return Limits(
            partitions=self.partitions,
            unsettled=unsettled,
            grace_s=self.grace_s,
            most_bytes=self.max_event_bytes,
        )


def load_settings() -> BridgeSettings:
    """The settings from the environment. Raises SettingsError, in one sentence, without values."""
    return load(BridgeSettings)
