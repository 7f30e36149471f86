"""Where the broker is."""

from __future__ import annotations

from pydantic import Field

from fleet.settings import AmqpSettings


class TopologySettings(AmqpSettings):
    """The broker, and `MANAGEMENT_URL` where the management API is not on its usual port."""

    management_url: str | None = Field(default=None, validation_alias="MANAGEMENT_URL", repr=False)
