"""From a raw frame to what is to be published, and where. No I/O."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec

from fleet.core.errors import EnvelopeError
from fleet.core.events import MAX_BYTES, Event, read_event
from fleet.core.payloads import LIVE_ONLY, OWN
from fleet.core.signature import Keys
from fleet.store.bridge import MissedRange, QuarantinedRow, ShedRow
from publisher.sources.api import Gap
from topology import names

KEPT_BYTES: Final = 1 << 20
"""How much of an unreadable frame is kept."""

Ticked: TypeAlias = Callable[[dict[str, Any], int, int], object]
"""Hears the payload of a tick, when its event was made, and when it was read."""


class Posting(msgspec.Struct, gc=False):
    """One frame on its way to the broker.

    `cursor` is the position that is settled with it: its own event id, or that of the last event
    before it. `shed` and `quarantined` are what its passing writes in the store. `span`
    is its trace's, where there is one.
    """

    exchange: str
    routing_key: str
    body: bytes
    headers: Mapping[str, Any]
    lane: int
    cursor: str
    ts: int
    number: int = -1
    missed: MissedRange | None = None
    shed: ShedRow | None = None
    quarantined: QuarantinedRow | None = None
    span: Any = None

    @property
    def live_only(self) -> bool:
        """Whether it is shed rather than waited for."""
        return self.quarantined is None and self.routing_key in LIVE_ONLY


class Reader:
    """Reads the frames of one source in order of arrival, from `cursor` on.

    Ticks carry the header `partition`, out of `partitions`; those of one pair, and events of one
    type, share a publishing lane. `ticked` hears of each tick. A frame of more than `most_bytes`
    is not read, and what only the fleet itself may say is no event of a source. What is read is
    signed where there are `keys`.
    """

    def __init__(
        self,
        source: str,
        cursor: str,
        *,
        partitions: int,
        most_bytes: int = MAX_BYTES,
        ticked: Ticked | None = None,
        keys: Keys | None = None,
    ) -> None:
        self._source = source
        self._keys = keys
        self._ticked = ticked
        self._partitions = partitions
        self._most_bytes = most_bytes
        self._gap: Gap | None = None
        self.cursor = cursor

    def gap(self, gap: Gap) -> None:
        """Remember that events are missing between `gap.after` and the next one."""
        self._gap = self._gap or gap

    def read(self, raw: bytes, now_ms: int) -> Posting:
        """The frame as a posting: to the exchange, or to quarantine with the reason."""
        try:
            event = read_event(raw, now_ms, payload=False, most=self._most_bytes)
            if event.type in OWN:
                return self.quarantine(raw, f"{event.type} is for the fleet alone to say", now_ms)
            headers: dict[str, Any] = {"x-event-id": event.event_id, "x-event-type": event.type}
            if event.type in LIVE_ONLY:
                lane = headers[names.PARTITION] = self._partition(event)
                if self._ticked is not None:
                    self._ticked(event.payload, event.ts, now_ms)
            else:
                lane = _lane(event.type)
        except EnvelopeError as error:
            return self.quarantine(raw, str(error), now_ms)
        if self._keys is not None:
            headers = self._keys.stamped(headers, raw)
        posting = Posting(names.INGEST, event.type, raw, headers, lane, event.event_id, event.ts)
        if self._gap is not None:
            posting.missed = MissedRange(self._gap.after, event.event_id, now_ms)
            self._gap = None
        self.cursor = event.event_id
        return posting

    def quarantine(self, raw: bytes, reason: str, now_ms: int) -> Posting:
        """The posting that keeps an unreadable frame for a person to look at."""
        reason = reason.encode("utf-8", "replace").decode()
        digest = hashlib.sha256(raw).hexdigest()
        headers = {
            "source": self._source,
            "cursor": self.cursor,
            "reason": reason,
            "length": len(raw),
            "sha256": digest,
        }
        row = QuarantinedRow(self.cursor, reason, digest, now_ms)
        return Posting(
            names.QUARANTINE,
            "",
            raw[:KEPT_BYTES],
            headers,
            0,
            self.cursor,
            now_ms,
            quarantined=row,
        )

    def _partition(self, event: Event) -> int:
        pair = event.payload.get("pair")
        if not isinstance(pair, str):
            raise EnvelopeError("payload.pair is no text")
        try:
            return _partition(pair, self._partitions)
        except UnicodeEncodeError:
            raise EnvelopeError("payload.pair is not valid Unicode") from None


_partition = lru_cache(maxsize=4096)(names.partition)


@lru_cache(maxsize=1024)
def _lane(event_type: str) -> int:
    return zlib.crc32(event_type.encode())
