"""Whether a bridge does its work: what /readyz asks, and gauges show."""

from __future__ import annotations

import time
from typing import Final

from fleet.amqp.publisher import ConfirmedPublisher
from fleet.telemetry import metrics
from fleet.telemetry.health import Health
from publisher.book import Book
from publisher.outbox import Outbox
from publisher.sources.api import Source

STALLED_S: Final = 5.0
"""A leader that settles nothing for so long, while something waits, does not do its work."""


class Vitals:
    """Watches one bridge. One that stands by is ready: it would take over."""

    def __init__(self, source: Source, publisher: ConfirmedPublisher) -> None:
        self.health = Health(f"bridge of {source.name}")
        self._source = source
        self._term: tuple[Outbox, Book] | None = None
        self._passed = 0
        self.health.tell("role", lambda: "leader" if self._term else "standby")
        self.health.check("source", self._connected)
        self.health.check("events", self._moving)
        self.health.check("publisher", lambda: publisher.trouble)
        self._leader = metrics.BRIDGE_LEADER.labels(source.name)
        self._leader.set(0)
        metrics.UNCONFIRMED.set_function(lambda: publisher.in_flight)
        metrics.CURSOR_LAG.labels(source.name).set_function(lambda: self.lag_s)
        metrics.BRIDGE_CONNECTED.labels(source.name).set_function(lambda: source.connected)

    @property
    def lag_s(self) -> float:
        """Age of the oldest frame that the saved cursor has not passed; 0 where it passed all."""
        if self._term is None:
            return 0.0
        outbox, book = self._term
        oldest = book.oldest or outbox.oldest
        return max(0.0, time.time() - oldest.ts / 1000) if oldest else 0.0

    @property
    def is_leading(self) -> bool:
        """Whether it has the lease and publishes."""
        return self._term is not None

    @property
    def passed(self) -> int:
        """How many frames passed the settled prefix, over all its terms."""
        return self._passed + (self._term[1].passed if self._term else 0)

    @property
    def unsettled(self) -> int:
        """How many frames are neither confirmed nor otherwise settled."""
        return self._term[0].unsettled if self._term else 0

    def leads(self, outbox: Outbox, book: Book) -> None:
        """Watch this term."""
        self._term = outbox, book
        self._leader.set(1)

    def ended(self) -> None:
        """The term is over."""
        self._passed = self.passed
        self._term = None
        self._leader.set(0)

    def _connected(self) -> str:
        return "" if self._term is None or self._source.connected else "not connected"

    def _moving(self) -> str:
        stalled = self._term[0].stalled_s if self._term else 0.0
        return f"none was settled for {stalled:.0f} s" if stalled > STALLED_S else ""
