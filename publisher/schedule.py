"""Schedules: when something is due, and what was missed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from itertools import islice, takewhile
from typing import Any, Final, Literal, TypeAlias

import msgspec
from cronsim import CronSim

from fleet.core.events import Event
from fleet.core.ulid import derived_ulid

Missed: TypeAlias = Literal["skip", "once", "all"]
ON_TIME_MS: Final = 60_000
"""A firing that is later than this was missed: no bridge led, or none could publish."""
MOST: Final = 1000
"""Missed firings that are made up for; of more only the last so many."""


class Schedule(msgspec.Struct, frozen=True):
    """Something that fires again and again: by a cron expression, or every `every_s` seconds.

    A cron expression counts in `zone`; every so many seconds counts from 1970, so that all bridges
    agree. `missed` says what becomes of firings that nobody made: none of them is made up for
    (skip), the last one (once), or all.
    """

    name: str
    type: str
    cron: str = ""
    every_s: int = 0
    payload: Mapping[str, Any] = msgspec.field(default_factory=dict)
    missed: Missed = "skip"
    zone: tzinfo = UTC

    def due(self, last_ms: int, now_ms: int) -> list[int]:
        """The times at which it has to fire now, oldest first, if it fired last at `last_ms`."""
        newer = takewhile(lambda at: at > last_ms, self._backwards(now_ms))
        if self.missed == "all":
            return list(islice(newer, MOST))[::-1]
        newest = next(newer, None)
        if newest is None or (now_ms - newest > ON_TIME_MS and self.missed == "skip"):
            return []
        on_time = takewhile(lambda at: now_ms - at <= ON_TIME_MS, newer)
        return [newest, *on_time][::-1]

    def event(self, agent: str, at_ms: int) -> Event:
        """The event of one firing; the same for the same firing, whichever bridge makes it."""
        return Event(
            event_id=derived_ulid(at_ms, f"clock:{agent}:{self.name}:{at_ms}"),
            type=self.type,
            agent_id=agent,
            payload={**self.payload, "schedule": self.name, "due_ms": at_ms},
            ts=at_ms,
        )

    def _backwards(self, now_ms: int) -> Iterator[int]:
        """Every time at which it fires, up to now, newest first."""
        if self.every_s:
            step = self.every_s * 1000
            yield from range(now_ms // step * step, 0, -step)
            return
        # A firing in this very minute counts: the search begins behind it.
        start = datetime.fromtimestamp(now_ms // 1000 + 1, self.zone)
        for at in CronSim(self.cron, start, reverse=True):
            yield round(at.timestamp() * 1000)


BUILT_IN: Final = ("clock.health", "clock.reconcile")


def built_in(health_s: int, reconcile_s: int) -> list[Schedule]:
    """The schedules that the agent counts on; one of 0 seconds is left out."""
    return [
        Schedule(name=kind, type=kind, every_s=every_s)
        for kind, every_s in zip(BUILT_IN, (health_s, reconcile_s), strict=True)
        if every_s
    ]
