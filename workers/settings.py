"""Settings of a worker, from the environment."""

from __future__ import annotations

import os
import secrets
import socket
from typing import Annotated, Final, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from fleet.core.events import MAX_BYTES
from fleet.settings import AmqpSettings, SigningSettings

AUTO_AHEAD_S: Final = 0.25
"""With PREFETCH=auto: so much work is in hand beside what runs."""
AUTO_MOST: Final = 400


def least_prefetch(concurrency: int) -> int:
    """What PREFETCH=auto begins with, and never goes below: one that runs, one that waits."""
    return min(2 * concurrency, 65_535)


def _name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


class WorkerSettings(AmqpSettings, SigningSettings):
    """What a worker needs to know; each field is an environment variable of the same name."""

    model_config = SettingsConfigDict(frozen=True)

    worker_name: str = Field(default_factory=_name, pattern=r"^[A-Za-z0-9_.:\-]{1,128}$")
    """Unique among live workers: it tells who holds an effect or owns a lane."""
    prefetch: Annotated[int, Field(ge=1, le=65_535)] | Literal["auto"] = "auto"
    """Deliveries of the work queue that may be in our hands; auto: by how long handlers take."""
    lane_prefetch: int = Field(default=200, ge=1, le=65_535)
    """Deliveries of each lane that may be in our hands."""
    concurrency: int = Field(default=10, ge=1, le=10_000)
    """Handlers of the work queue that run at a time."""
    silence_s: float = Field(default=15.0, gt=0)
    """Seconds without a delivery after which consuming starts anew (in lanes: four times that)."""
    max_event_bytes: int = Field(default=MAX_BYTES, ge=1024, le=MAX_BYTES)
    """A larger event is failed without being read."""
    halt_after: int = Field(default=5, ge=0, le=1_000_000)
    """Equal failures in a row, each a bug of the handler, that halt it; 0: never."""
    watch_memory_mb: int = Field(default=0, ge=0)
    """Memory from which on the worker ends; 0: nine tenths of what machine or container has."""
    watch_disk_free_mb: int = Field(default=50, ge=0)
    """What must be free on the disk of a SQLite store; 0: whatever there is."""
    watch_store_s: float = Field(default=30.0, gt=0)
    """How long the store may be away before a person is told."""
    grace_s: float = Field(default=25.0, gt=0)
    """Seconds that a stop request leaves for what is in flight."""

    @property
    def first_prefetch(self) -> int:
        """The prefetch that a worker begins with."""
        return least_prefetch(self.concurrency) if self.prefetch == "auto" else self.prefetch
