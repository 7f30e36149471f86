"""What a delivery goes through in a worker: it is consumed, read, handled and settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fleet.amqp.connection import Link
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.events import Event
from fleet.store.api import Store
from workers.balance import Balance
from workers.consumers import Consumers
from workers.drain import Drain
from workers.halting import Halting
from workers.holds import Holds
from workers.intake import Intake
from workers.job import Job
from workers.lanes import LaneKeeper
from workers.loops import Loops
from workers.middleware import Call
from workers.mishaps import Mishaps
from workers.pool import Pool
from workers.registry import Service
from workers.roads import Roads
from workers.settings import WorkerSettings
from workers.settle import Settler
from workers.tally import Tally


class Flow:
    """From the queues of `service` over `link` to its handlers, and on to `publisher` and `store`.

    `settled` is called with each job that is done with, those that were lost on the way too;
    `halted` when a handler was halted here.
    """

    def __init__(
        self,
        service: Service,
        settings: WorkerSettings,
        *,
        loops: Loops,
        link: Link,
        publisher: ConfirmedPublisher,
        store: Store,
        call: Call,
        holds: Holds,
        tally: Tally,
        settled: Callable[[Job], None],
        halted: Callable[[], None],
    ) -> None:
        worker, layout, keys = settings.worker_name, service.layout(), settings.keys()
        lane = service.find(layout.lanes.type) if layout.lanes else None
        self._loops = loops
        self._balancing: asyncio.Task[None] | None = None
        self._publisher = publisher
        self._after = settled
        self._roads = Roads(layout, worker, keys)
        self._lanes = LaneKeeper(store, service.name, worker, lane.state if lane else None)
        self._mishaps = Mishaps()
        self._halting = Halting(service.name, worker, settings.halt_after, holds, halted)
        self._settler = Settler(
            loops=loops,
            service=service.name,
            worker=worker,
            store=store,
            publisher=publisher,
            roads=self._roads,
            settled=self._settled,
            fenced=self._fenced,
            undone=self._halting.undone,
            tally=tally,
        )
        self.pool = Pool(
            loops=loops,
            concurrency=settings.concurrency,
            call=call,
            worker=worker,
            lanes=self._lanes,
            finished=self._finished,
            started=self._started,
            renew=self._renew,
            took=tally.took,
            holds=holds,
        )
        self._intake = Intake(
            loops=loops,
            service=service,
            worker=worker,
            store=store,
            lanes=self._lanes,
            pool=self.pool,
            finished=self._finished,
            holds=holds,
            most_bytes=settings.max_event_bytes,
            keys=keys,
        )
        self.consumers = Consumers(
            loops=loops,
            link=link,
            layout=layout,
            settings=settings,
            holds=holds,
            on_delivery=self._intake.hand_over,
            on_lane=self._lanes.forget,
        )
        self._balance = Balance(
            store,
            service=service.name,
            worker=worker,
            lanes=self._lanes,
            let_go=self.consumers.restart,
        )
        self._drain = Drain(
            store=store,
            consumers=self.consumers,
            intake=self._intake,
            pool=self.pool,
            settler=self._settler,
            grace_s=settings.grace_s,
        )

    def start(self) -> None:
        """Begin, from the end: what is consumed finds somebody who handles and settles it."""
        self._settler.start()
        self.pool.start()
        self._intake.start()
        self.consumers.start()
        self._balancing = self._loops.start(self._balance.run())

    async def drain(self) -> int:
        """Take nothing more and finish what runs, within the grace; how many were handed back.

        The channels stay open: `consumers` closes them.
        """
        if self._balancing is not None:
            self._balancing.cancel()
        return await self._drain.run()

    async def publish(self, event: Event) -> None:
        """Publish an event that no delivery led to; return once it is confirmed.

        Raises PublishError where it is not.
        """
        message = self._roads.event(event)
        await self._publisher.publish(
            message.exchange, message.key, message.body, headers=message.headers
        )

    def _finished(self, job: Job) -> None:
        self._mishaps.decided(job)
        self._halting.decided(job)
        self._settler.add(job)

    def _settled(self, job: Job) -> None:
        self._halting.settled(job)
        self._after(job)
        if job.passed is not None:
            job.passed.set()
        self._intake.release(job)

    def _fenced(self, queue: str) -> None:
        """Hand a lane's deliveries back: what we know of its state is not the truth."""
        self._lanes.forget(queue)
        self.consumers.restart(queue)

    async def _started(self, job: Job) -> int:
        return await self._intake.started(job)

    async def _renew(self, job: Job) -> None:
        await self._intake.renew(job)
