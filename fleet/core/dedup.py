"""Memory of the last ids, for handlers without effects."""

from __future__ import annotations


class Recent:
    """Remembers the last `capacity` ids; older ones are forgotten in turn."""

    __slots__ = ("_capacity", "_ids")

    def __init__(self, capacity: int = 100_000) -> None:
        self._ids: dict[str, None] = {}
        self._capacity = capacity

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, event_id: str) -> None:
        """Remember `event_id`; the oldest one goes when the memory is full."""
        ids = self._ids
        ids[event_id] = None
        if len(ids) > self._capacity:
            del ids[next(iter(ids))]
