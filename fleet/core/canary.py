"""The event by which a doctor proves a road: workers skip it, and it is nobody's business."""

from __future__ import annotations

from typing import Final

from fleet.core.events import Event

TYPE: Final = "fleet.canary"
SKIPPED: Final = "canary"
"""The reason in the journal of a canary that came home."""


def canary(event_id: str, now_ms: int) -> Event:
    """A canary with this id."""
    return Event(event_id=event_id, type=TYPE, agent_id="doctor", payload={}, ts=now_ms)
