"""Whether a worker's work is really done: what /readyz asks, and gauges show."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from importlib.metadata import version
from typing import Final

from fleet.amqp.connection import Link
from fleet.amqp.looks import LinkLooks
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.amqp.subscription import Subscription
from fleet.core.errors import StateError
from fleet.store import lanes
from fleet.store.watched import Watched
from fleet.telemetry import metrics
from fleet.telemetry.health import Health
from workers.consumers import Consumers
from workers.registry import Service
from workers.tally import Tally

LOOK_S: Final = 3.0
AWAY_S: Final = 1.5
"""A consumer that starts anew, as an idle one does now and then, is back sooner."""
MARGIN_S: Final = 10.0
"""How much longer than the longest deadline nothing may be settled while something is in hand."""


class Vitals:
    """Watches one worker.

    Work is done when every consumer stands that is not paused, deliveries come while the work
    queue has a backlog, what is in hand gets settled, publishes are answered, and the store
    commits. A lane's backlog says nothing of this worker: the broker may have made another one
    the active consumer.
    """

    def __init__(
        self,
        health: Health,
        service: Service,
        *,
        work_queue: str,
        consumers: Consumers,
        consuming: Link,
        publisher: ConfirmedPublisher,
        store: Watched,
        tally: Tally,
    ) -> None:
        self._name = service.name
        self._worker = health.name
        self._patience_s = MARGIN_S + max(each.deadline for each in service.handlers.values())
        self._work_queue = work_queue
        self._consumers = consumers
        self._consuming = consuming
        self._publisher = publisher
        self._store = store
        self._tally = tally
        self._looks = LinkLooks(consuming)
        self._came = 0
        self._since = self._idle_at = time.monotonic()
        self._starved = ""
        health.check("consumers", self._consumption)
        health.check("deliveries", lambda: self._starved)
        health.check("settlement", self._settlement)
        health.check("publisher", lambda: publisher.trouble)
        health.check("store", lambda: store.trouble)
        self._gauge()

    async def watch(self) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self._ask_store()
            if not self._consumers.in_hand:
                self._idle_at = time.monotonic()
            if self._work_queue in self._consumers.all:
                await self._look(self._consumers.all[self._work_queue])

    async def _ask_store(self) -> None:
        """Ask the store something, so that what it says of itself is about now."""
        with suppress(StateError):
            owned = await self._store.read(lambda tx: lanes.owned(tx, self._name, self._worker))
            metrics.LANES_OWNED.labels(self._name).set(owned)

    async def _look(self, work: Subscription) -> None:
        """Note since when nothing came although something waits and we have room for it."""
        depth, now = await self._looks.depth(work.queue), time.monotonic()
        ready = depth.ready if depth else 0
        is_free = work.is_consuming and work.in_hand < work.prefetch
        if not ready or not is_free or work.delivered != self._came:
            self._came, self._since, self._starved = work.delivered, now, ""
        else:
            waited = now - self._since
            self._starved = f"{ready} wait in {work.queue} and none came for {waited:.0f} s"

    def _consumption(self) -> str:
        if not self._consuming.connected:
            return "no connection to the broker"
        if not self._consumers.subscribed:
            return "still subscribing"
        away = self._consumers.away(AWAY_S)
        return f"no consumer on {', '.join(away)}" if away else ""

    def _settlement(self) -> str:
        held = self._consumers.in_hand
        waited = time.monotonic() - max(self._tally.settled_at, self._idle_at)
        if not held or waited < self._patience_s:
            return ""
        return f"{held} in hand and none was settled for {waited:.0f} s"

    def _gauge(self) -> None:
        metrics.WORKER_INFO.labels(self._name, self._worker, version("flea-fleet")).set(1)
        metrics.IN_FLIGHT.labels(self._name).set_function(lambda: self._consumers.in_hand)
        metrics.UNCONFIRMED.set_function(lambda: self._publisher.in_flight)
        metrics.CONSUMERS.labels(self._name).set_function(lambda: len(self._consumers.consuming))
