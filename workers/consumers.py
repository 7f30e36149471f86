"""The subscriptions of one worker: what it consumes, in which order it joins, when it pauses."""

from __future__ import annotations

import asyncio
import time

import structlog

from fleet.amqp.connection import Link
from fleet.amqp.consumer import OnDelivery
from fleet.amqp.subscription import OnStart, Subscription
from topology import names
from topology.model import ServiceLayout
from workers.holds import Holds
from workers.loops import Loops
from workers.placement import delay_s
from workers.settings import WorkerSettings

_LANE_PATIENCE = 4
"""A lane moves to another worker when its consumer starts anew; an idle one should not often."""

log = structlog.get_logger("fleet.workers")


class Consumers:
    """Subscribes to the work queue and the lanes, and closes them while `holds` withholds all.

    `on_lane` is told the queue each time a lane is consumed anew.
    """

    def __init__(
        self,
        *,
        loops: Loops,
        link: Link,
        layout: ServiceLayout,
        settings: WorkerSettings,
        holds: Holds,
        on_delivery: OnDelivery,
        on_lane: OnStart,
    ) -> None:
        self._loops = loops
        self._link = link
        self._layout = layout
        self._settings = settings
        self._holds = holds
        self._on_delivery = on_delivery
        self._on_lane = on_lane
        self._changed = asyncio.Event()
        self._resuming: set[str] = set()
        self._prefetch = settings.first_prefetch
        self._tasks: list[asyncio.Task[None]] = []
        self.all: dict[str, Subscription] = {}
        self.subscribed = False
        """Whether all of them were begun."""

    @property
    def consuming(self) -> list[str]:
        """The queues whose subscriptions stand now."""
        return [queue for queue, one in self.all.items() if one.is_consuming]

    @property
    def in_hand(self) -> int:
        """How many deliveries are in our hands."""
        return sum(each.in_hand for each in self.all.values())

    @property
    def prefetch(self) -> int:
        """How many deliveries of the work queue may be in our hands."""
        return self._prefetch

    @property
    def is_paused(self) -> bool:
        """Whether every one of them is paused."""
        return bool(self.all) and len(self.paused) == len(self.all)

    @property
    def paused(self) -> list[str]:
        """The queues that are paused."""
        return [queue for queue, one in self.all.items() if one.is_paused]

    def away(self, longer_than_s: float) -> list[str]:
        """The queues that should be consumed and have not been for so long."""
        return [
            queue
            for queue, one in self.all.items()
            if one.away_s > longer_than_s and not one.is_paused
        ]

    def start(self) -> None:
        """Begin to subscribe."""
        self._tasks = [self._loops.start(self._subscribe()), self._loops.start(self._follow())]

    def obey(self) -> None:
        """What is withheld may have changed: pause or resume, soon."""
        self._changed.set()

    def restart(self, queue: str) -> None:
        """Give up the channel of a queue: what is unsettled comes again, in order."""
        if queue in self.all:
            self.all[queue].restart()

    async def resize(self, prefetch: int) -> None:
        """Have at most `prefetch` deliveries of the work queue in hand from now on."""
        self._prefetch = prefetch
        work = self.all.get(names.work_queue(self._layout.name))
        if work is not None:
            await work.resize(prefetch)

    async def cancel(self) -> None:
        """Take no more deliveries, and subscribe to nothing more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(one.cancel() for one in self.all.values()))

    async def stop(self) -> None:
        """Close the channels."""
        await asyncio.gather(*(one.stop() for one in self.all.values()))

    async def _subscribe(self) -> None:
        layout, me = self._layout, self._settings.worker_name
        if layout.patterns:
            await self._add(names.work_queue(layout.name), is_lane=False)
        began = time.monotonic()
        for lane in sorted(layout.lane_queues, key=lambda lane: delay_s(me, lane)):
            await asyncio.sleep(began + delay_s(me, lane) - time.monotonic())
            await self._add(lane, is_lane=True)
        self.subscribed = True

    async def _add(self, queue: str, *, is_lane: bool) -> None:
        settings = self._settings
        self.all[queue] = subscription = Subscription(
            self._link,
            queue,
            self._on_delivery,
            prefetch=settings.lane_prefetch if is_lane else self._prefetch,
            is_lane=is_lane,
            silence_s=settings.silence_s * (_LANE_PATIENCE if is_lane else 1),
            on_start=self._on_lane if is_lane else None,
        )
        if self._holds.closes(is_lane=is_lane):
            await subscription.pause()
        self._loops.watch(subscription.start())

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await asyncio.gather(*(self._pause(one) for one in list(self.all.values())))
            for one in list(self.all.values()):
                if self._may_resume(one):
                    self._resuming.add(one.queue)
                    self._loops.start(self._resume(one))

    def _may_resume(self, one: Subscription) -> bool:
        return one.is_paused and not self._is_closed(one) and one.queue not in self._resuming

    async def _pause(self, one: Subscription) -> None:
        if not one.is_paused and self._is_closed(one):
            log.info("paused", queue=one.queue)
            await one.pause()

    async def _resume(self, one: Subscription) -> None:
        try:
            if one.origin.is_lane:
                await asyncio.sleep(delay_s(self._settings.worker_name, one.queue))
            if one.is_paused and not self._is_closed(one):
                log.info("resumed", queue=one.queue)
                await one.resume()
        finally:
            self._resuming.discard(one.queue)

    def _is_closed(self, one: Subscription) -> bool:
        return self._holds.closes(is_lane=one.origin.is_lane)
