"""Parked messages grouped with their like. Pure; memory grows with the groups, not the messages."""

from __future__ import annotations

from typing import Final

import msgspec

from replay.entry import Entry

SAMPLES: Final = 5


class Group(msgspec.Struct):
    """Messages of one type that failed alike in one handler."""

    fingerprint: str
    error_class: str
    error_type: str
    type: str
    handler: str
    home: str
    error: str
    """The text of the first one."""
    count: int = 0
    first_ms: int = 0
    last_ms: int = 0
    replayed: int = 0
    """How many of them failed again after a replay."""
    ids: list[str] = []
    """A few of them."""

    def add(self, entry: Entry) -> None:
        """Count one more."""
        self.count += 1
        self.replayed += entry.replays > 0
        if entry.first_ms and (not self.first_ms or entry.first_ms < self.first_ms):
            self.first_ms = entry.first_ms
        self.last_ms = max(self.last_ms, entry.last_ms)
        if len(self.ids) < SAMPLES:
            self.ids.append(entry.id)


class Groups:
    """All groups, by what their messages have in common."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, ...], Group] = {}

    def add(self, entry: Entry) -> None:
        """Put the entry with its like."""
        alike = (entry.fingerprint, entry.error_class, entry.error_type, entry.type, entry.handler)
        group = self._groups.get(alike)
        if group is None:
            group = self._groups[alike] = Group(*alike, home=entry.home, error=entry.error)
        group.add(entry)

    def largest_first(self) -> list[Group]:
        """The groups, those with the most messages first."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, group.type))
