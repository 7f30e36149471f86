"""What is planned for the broker, as frozen values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from topology import names

Argument: TypeAlias = str | int | bool
Arguments: TypeAlias = Mapping[str, Argument]
QueueType: TypeAlias = Literal["quorum", "classic"]
Overflow: TypeAlias = Literal["reject-publish", "drop"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    """Unique among exchanges."""
    kind: Literal["topic", "direct", "fanout", "headers"]
    """How it routes."""
    arguments: Arguments = field(default_factory=dict)
    """Such as its alternate exchange."""
    note: str = ""
    """What it is for, in a few words."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue."""

    name: str
    """Unique among queues."""
    arguments: Arguments = field(default_factory=dict)
    """With `x-queue-type` always, so that no default of a virtual host can change it."""
    note: str = ""
    """What it is for, in a few words."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A way from an exchange to a queue or to another exchange."""

    source: str
    """The exchange it leaves."""
    to: Literal["queue", "exchange"]
    """What it leads to."""
    destination: str
    """That one's name."""
    key: str = ""
    """The routing key."""
    arguments: Arguments = field(default_factory=dict)
    """What a headers exchange compares."""


@dataclass(frozen=True, slots=True)
class Lanes:
    """Events of one type, in order, spread over partitions by a key in their payload."""

    type: str = "market.tick"
    """The event type they carry."""
    key: str = "pair"
    """The payload field whose events stay in order."""
    partitions: int = 16
    """1 to 256 lanes: the most workers that can share the type."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a service's queues hold, and for how long."""

    max_length: int = 100_000
    """Messages in the work queue."""
    lane_max_length: int = 10_000
    """Messages in each lane."""
    max_bytes: int = 1 << 30
    """Bytes of the bodies in the work queue, whichever bound is reached first."""
    lane_max_bytes: int = 64 << 20
    """Bytes of the bodies in each lane."""
    ttl_ms: int = 86_400_000
    """Milliseconds that a message may wait in the work queue; then it is failed by the broker."""
    delivery_limit: int = 20
    """Deliveries, 20 or more, after which the broker fails a message that kills workers.

    The net below our own count of three: a crash counts for all that was prefetched beside.
    """


@dataclass(frozen=True, slots=True)
class ServiceLayout:
    """What a service (a consumer group) asks of the broker."""

    name: str
    """Lower-case words with dots: `trading.agent`."""
    patterns: tuple[str, ...]
    """The fleet patterns of its handlers."""
    lanes: Lanes | None = None
    """The type it takes in order, if any."""
    limits: Limits = field(default_factory=Limits)
    """How much its queues hold."""
    overflow: Overflow = "reject-publish"
    """A full work queue holds the bridge back, or drops its oldest into the failed queue."""
    buckets: int = names.BUCKETS
    """Retry buckets, 1 to 16."""

    @property
    def fed(self) -> tuple[str, ...]:
        """The patterns that reach the service, by its work queue or its lanes; sorted."""
        return tuple(sorted({*self.patterns, *([self.lanes.type] if self.lanes else [])}))

    @property
    def lane_queues(self) -> tuple[str, ...]:
        """The queues of its lanes, by their numbers."""
        lanes = self.lanes
        if lanes is None:
            return ()
        return tuple(names.lane(self.name, lanes.type, n) for n in range(lanes.partitions))


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole layout; iterates in an order in which it can be declared."""

    services: tuple[ServiceLayout, ...]
    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]

    def __iter__(self) -> Iterator[Exchange | Queue | Binding]:
        yield from self.exchanges
        yield from self.queues
        yield from self.bindings
