"""Every name and key on the broker, made by pure functions: the same arguments, the same name."""

from __future__ import annotations

import zlib
from typing import Final

INGEST: Final = "pf.ingest"
EVENTS: Final = "pf.events"
LOG: Final = "pf.events.log"
DLX: Final = "pf.events.dlx"
REDELIVER: Final = "pf.redeliver"
UNROUTED: Final = "pf.unrouted"
QUARANTINE: Final = "pf.quarantine"
PARKED: Final = (UNROUTED, QUARANTINE)
"""What belongs to no service. From 4.2.7 on who only counts may not look at these queues: they are
called as exchanges are, so what lets one look would let one publish, or take."""

PARTITION: Final = "partition"
"""The header that sends an event to its lane: an integer, for the broker tells 3 from "3"."""

BUCKETS: Final = 12
"""Retry buckets of a service: 0.25 s to 512 s."""
FIRST_BOUND_MS: Final = 250


def work_queue(service: str) -> str:
    """The queue a service works from."""
    return f"pf.{service}"


def failed(service: str) -> str:
    """The queue where a service's failed messages wait for a person."""
    return f"pf.{service}.failed"


def retry(service: str, number: int) -> str:
    """Retry bucket `number`, counted from 0."""
    return f"pf.{service}.retry.{number:02d}"


def lanes_exchange(service: str, event_type: str) -> str:
    """The exchange that fans events of one type out to their lanes: `pf.trading.agent.ticks`."""
    return f"pf.{service}.{event_type.rpartition('.')[2]}s"


def lane(service: str, event_type: str, number: int) -> str:
    """The queue of one partition, counted from 0."""
    return f"{lanes_exchange(service, event_type)}.{number}"


def moving(queue: str) -> str:
    """Where a queue's messages wait while it is made anew; no service's name can hold a colon."""
    return f"{queue}:moving"


def partition(key: str, partitions: int) -> int:
    """The partition of a key, 0 to `partitions` - 1: the same in every process, for ever."""
    return zlib.crc32(key.encode()) % partitions


def bucket_ms(number: int) -> int:
    """The longest delay, in milliseconds, that bucket `number` holds."""
    return FIRST_BOUND_MS << number


def bucket(delay_ms: int, buckets: int = BUCKETS) -> int:
    """The smallest bucket that holds a delay; the last one where none does.

    A queue expires messages only at its head, so a message waits up to the bucket's width too
    long. What is to wait longer than the last bucket holds goes through that one again.
    """
    widths = -(-max(delay_ms, 1) // FIRST_BOUND_MS)
    return min((widths - 1).bit_length(), buckets - 1)
