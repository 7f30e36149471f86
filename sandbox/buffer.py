"""The last minutes of the feed, kept for clients that come back."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, NamedTuple

COMPACT_AT: Final = 4096


class Event(NamedTuple):
    """An event as it was emitted; `text` is its whole envelope as JSON."""

    id: str
    type: str
    ts_ms: int
    text: bytes


class Resume(NamedTuple):
    """Where a client goes on, and whether it has missed nothing before that."""

    cursor: int
    resumed: bool


class Buffer:
    """An append-only run of events, read by sequence number, bounded by age and by count.

    The first event ever has the sequence number 0; numbers `first` to `end - 1` are still here.
    Events must come with strictly increasing ids and times that never go back.
    """

    def __init__(self, *, max_age_ms: int, max_events: int) -> None:
        self.dropped = 0
        self._max_age_ms = max_age_ms
        self._max_events = max_events
        self._events: list[Event] = []
        self._gone = 0  # events at the head of the list that count as dropped
        self._last_dropped = ""

    @property
    def first(self) -> int:
        """The sequence number of the oldest event still here."""
        return self.dropped

    @property
    def end(self) -> int:
        """The sequence number that the next event will have."""
        return self.dropped + len(self._events) - self._gone

    @property
    def oldest(self) -> str:
        """The id of the oldest event still here, or "" where there is none."""
        return self._events[self._gone].id if self._gone < len(self._events) else ""

    def append(self, event: Event) -> None:
        """Keep one more event; what is too old or too much is dropped."""
        self._events.append(event)
        self.expire(event.ts_ms)

    def expire(self, now_ms: int) -> None:
        """Drop what is older than the bound at `now_ms`, and what is above the count."""
        events, gone = self._events, self._gone
        too_old = now_ms - self._max_age_ms
        surplus = len(events) - self._max_events
        while gone < len(events) and (gone < surplus or events[gone].ts_ms < too_old):
            gone += 1
        if gone != self._gone:
            self._last_dropped = events[gone - 1].id
            self.dropped += gone - self._gone
            self._gone = gone
            self._compact()

    def _compact(self) -> None:
        # Deleting at the head of a list moves the rest: done rarely, it costs nothing an event.
        if self._gone >= COMPACT_AT and self._gone * 4 >= len(self._events):
            del self._events[: self._gone]
            self._gone = 0

    def read(self, cursor: int, limit: int) -> list[Event]:
        """Up to `limit` events from sequence number `cursor` on, in order.

        Raises LookupError where `cursor` has already been dropped.
        """
        if cursor < self.first:
            raise LookupError(f"event {cursor} has been dropped; the first here is {self.first}")
        start = cursor - self.dropped + self._gone
        return self._events[start : start + limit]

    def resume(self, resume_from: str) -> Resume:
        """Where a client goes on that saw `resume_from` last; "" begins with all that is here.

        `resumed` is true only where every event after `resume_from` is still here.
        """
        if not resume_from:
            return Resume(self.first, resumed=True)
        at = bisect_left(self._events, resume_from, lo=self._gone, key=_id)
        if at < len(self._events) and self._events[at].id == resume_from:
            return Resume(self.dropped + at - self._gone + 1, resumed=True)
        # An id that was never emitted here says nothing about what its client has seen.
        return Resume(self.first, resumed=resume_from == self._last_dropped)


def _id(event: Event) -> str:
    return event.id
