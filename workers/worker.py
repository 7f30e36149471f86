"""One replica: consumes its service's queues until it is asked to stop, then drains."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

import structlog

from fleet import clock
from fleet.amqp import frames
from fleet.amqp.connection import Link
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.decision import Postpone
from fleet.core.errors import StateError, TopologyError
from fleet.core.events import Event
from fleet.store import bindings, effects, lane_moves
from fleet.store.api import Store
from fleet.store.presence import Presence
from fleet.store.watched import Watched
from fleet.telemetry.health import Health
from topology import names
from workers.balance import Balance
from workers.consumers import Consumers
from workers.context import Startup
from workers.effects import outcome_of
from workers.halting import Halting
from workers.holds import Holds
from workers.intake import Intake
from workers.job import Job
from workers.lanes import LaneKeeper
from workers.loops import Loops, unless
from workers.middleware import Middleware, compose
from workers.mishaps import Mishaps
from workers.pool import Pool
from workers.process import effecting
from workers.pulse import Pulse
from workers.registry import Service
from workers.report import Report
from workers.roads import Roads
from workers.settings import WorkerSettings
from workers.settle import Settler
from workers.tally import Tally
from workers.tuning import Tuning
from workers.vitals import Vitals
from workers.watch import Watch, bounds

LET_GO_S: Final = 3.0

log = structlog.get_logger("fleet.workers")


class Worker:
    """Runs `service` on one event loop, on two connections, over an open store.

    `handled` counts the deliveries that are done with, those that were lost on the way too;
    `settled` hears of each of them.
    """

    def __init__(
        self,
        service: Service,
        settings: WorkerSettings,
        store: Store,
        middlewares: Sequence[Middleware] = (),
        *,
        store_folder: Path | None = None,
        settled: Callable[[Job], None] | None = None,
    ) -> None:
        self.name = settings.worker_name
        self.handled = 0
        self._after = settled
        self._service = service
        self._settings = settings
        self._store = store = Watched(store)
        self._layout = layout = service.layout()
        self._consuming = Link(settings.amqp_url, f"{self.name} consumes")
        self._publishing = Link(settings.amqp_url, f"{self.name} publishes")
        self._publisher = ConfirmedPublisher(self._publishing, max_body=frames.ANY_BODY)
        lane = service.find(layout.lanes.type) if layout.lanes else None
        self._lanes = LaneKeeper(store, service.name, self.name, lane.state if lane else None)
        self._roads = Roads(layout, self.name, keys := settings.keys())
        self._loops = Loops()
        self._holds = Holds(service)
        self._tally = Tally(service)
        self._settler = Settler(
            loops=self._loops,
            service=service.name,
            worker=self.name,
            store=store,
            publisher=self._publisher,
            roads=self._roads,
            settled=self._on_settled,
            fenced=self._on_fenced,
            undone=self._on_undone,
            tally=self._tally,
        )
        self._pool = Pool(
            loops=self._loops,
            concurrency=settings.concurrency,
            call=compose(middlewares),
            worker=self.name,
            lanes=self._lanes,
            finished=self._on_finished,
            started=self._on_suspect,
            renew=self._on_renew,
            took=self._tally.took,
            holds=self._holds,
        )
        self._intake = Intake(
            loops=self._loops,
            service=service,
            worker=self.name,
            store=store,
            lanes=self._lanes,
            pool=self._pool,
            finished=self._on_finished,
            holds=self._holds,
            most_bytes=settings.max_event_bytes,
            keys=keys,
        )
        self._consumers = Consumers(
            loops=self._loops,
            link=self._consuming,
            layout=layout,
            settings=settings,
            holds=self._holds,
            on_delivery=self._intake.hand_over,
            on_lane=self._lanes.forget,
        )
        self._balance = Balance(
            store,
            service=service.name,
            worker=self.name,
            lanes=self._lanes,
            let_go=self._consumers.restart,
        )
        self.health = Health(self.name)
        self._vitals = Vitals(
            self.health,
            service,
            work_queue=names.work_queue(layout.name),
            consumers=self._consumers,
            consuming=self._consuming,
            publisher=self._publisher,
            store=store,
            tally=self._tally,
        )
        limits = bounds(settings, store_folder)
        self._watch = Watch(limits, service.name, store, self._publish)
        report = Report(self._tally, self._consumers, self._holds, self.health)
        self._pulse = Pulse(
            loops=self._loops,
            store=store,
            presence=Presence(store, "worker", self.name, service.name),
            service=service,
            holds=self._holds,
            look=report.pulse,
            obey=self._consumers.obey,
            publish=self._publish,
        )
        self._tuning = Tuning(service, self._tally, self._consumers, settings.concurrency)
        self._mishaps = Mishaps()
        self._halting = Halting(
            service.name, self.name, settings.halt_after, self._holds, self._pulse.wake
        )

    @property
    def consuming(self) -> list[str]:
        """The queues whose subscriptions stand now."""
        return self._consumers.consuming

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain within the grace.

        Raises BrokerError where the broker is not to be had at the start, TopologyError where a
        handler is fed by no binding, SettingsError where a worker that lives has our name,
        ResourceError where memory or disk run out.
        """
        structlog.contextvars.bind_contextvars(worker=self.name, service=self._service.name)
        async with AsyncExitStack() as stack:
            async with unless(stop):  # a store or a broker that is away may be waited for long
                await self._begin(stack)
            if stop.is_set():
                return
            self._settler.start()
            self._pool.start()
            self._intake.start()
            self._loops.start(self._publisher.refused())
            self._consumers.start()
            balancing = self._loops.start(self._balance.run())
            self._loops.start(self._vitals.watch())
            self._loops.start(self._watch.run())
            if self._settings.prefetch == "auto":
                self._loops.start(self._tuning.run())
            try:
                log.info("worker ready")
                await self._until(stop)
            finally:
                balancing.cancel()
                await self._drain()

    async def _begin(self, stack: AsyncExitStack) -> None:
        """Everything that comes before the first delivery; `stack` undoes it."""
        await check_fed(self._service, self._store)
        stack.push_async_callback(self._pulse.leave)
        await self._pulse.begin()
        # Again: from now on whoever moves lanes sees us, and what began before is seen here.
        await self._store.read(lambda tx: lane_moves.refuse_worker(tx, self._service.name))
        stack.push_async_callback(self._loops.stop)
        self._loops.start(self._pulse.run())
        await stack.enter_async_context(self._publishing)
        await stack.enter_async_context(self._publisher)
        await stack.enter_async_context(self._consuming)
        self._pool.app = await self._app(stack)

    async def _until(self, stop: asyncio.Event) -> None:
        """Wait for a stop request; raise what ended one of our loops."""
        asked = asyncio.create_task(stop.wait())
        broken = asyncio.create_task(self._loops.broken())
        try:
            await asyncio.wait({asked, broken}, return_when=asyncio.FIRST_COMPLETED)
            if broken.done():
                broken.result()
        finally:
            asked.cancel()
            broken.cancel()

    async def _app(self, stack: AsyncExitStack) -> Any:
        if self._service.lifespan is None:
            return None
        startup = Startup(self._store, self.name, self._publish)
        return await stack.enter_async_context(self._service.lifespan(startup))

    def _on_finished(self, job: Job) -> None:
        self._mishaps.decided(job)
        self._halting.decided(job)
        self._settler.add(job)

    def _on_undone(self, job: Job) -> None:
        self._halting.undone(job)

    def _on_settled(self, job: Job) -> None:
        self.handled += 1
        self._halting.settled(job)
        if self._after is not None:
            self._after(job)
        if job.passed is not None:
            job.passed.set()
        self._intake.release(job)

    async def _publish(self, event: Event) -> None:
        message = self._roads.event(event)
        await self._publisher.publish(
            message.exchange, message.key, message.body, headers=message.headers
        )

    def _on_fenced(self, queue: str) -> None:
        """Hand a lane's deliveries back: what we know of its state is not the truth."""
        self._lanes.forget(queue)
        self._consumers.restart(queue)

    async def _on_suspect(self, job: Job) -> int:
        return await self._intake.started(job)

    async def _on_renew(self, job: Job) -> None:
        await self._intake.renew(job)

    async def _drain(self) -> None:
        """Finish what runs, hand back what was only prefetched, close the channels."""
        self.health.draining = True
        self._pulse.wake(say=True)
        await self._consumers.cancel()
        handed_back = 0
        try:
            async with asyncio.timeout(self._settings.grace_s):
                await self._intake.stop()
                handed_back = await self._hand_back()
                await self._pool.idle()
                await self._settler.drained()
        except TimeoutError:
            log.warning("the grace is over; what still runs comes again")
            handed_back += await self._hand_back()
        await self._loops.stop()
        await self._consumers.stop()
        log.info("worker drained", handed_back=handed_back)

    async def _hand_back(self) -> int:
        """Nack them; a lane's go back in order when its channel closes, not before newer."""
        jobs = self._pool.waiting()
        waiting = [*self._intake.waiting(), *(job.delivery for job in jobs)]
        nacked = [delivery for delivery in waiting if not delivery.origin.is_lane]
        try:
            await self._let_go(jobs)
        finally:
            for delivery in nacked:
                delivery.give_back()
        for line in {delivery.line for delivery in nacked}:
            await line.flush()
        return len(waiting)

    async def _let_go(self, jobs: Sequence[Job]) -> None:
        """Say that these did not touch their effects: whoever has them next need not wait or ask.

        Of an effect that an earlier attempt may have had that is not known any better.
        """
        held = [effect for job in jobs if (effect := effecting(job)) is not None]
        if not held:
            return
        results = [(outcome_of(each, Postpone(0)), clock.now_ms()) for each in held]
        with suppress(StateError, TimeoutError):  # then the hold runs out by itself
            async with asyncio.timeout(LET_GO_S):
                await self._store.run(lambda tx: effects.settle(tx, results))


async def check_fed(service: Service, store: Store) -> None:
    """Raise TopologyError where no binding feeds a handler, or where lanes are other than bound."""
    layout = service.layout()
    await store.read(lambda tx: lane_moves.refuse_worker(tx, service.name))
    fed = await store.read(lambda tx: bindings.of(tx, service.name))
    missing = sorted(set(layout.fed) - (fed or frozenset()))
    if missing:
        raise TopologyError(
            f"Nothing feeds the handlers of {service.name} for {', '.join(missing)};"
            " run `fleet topology apply`."
        )
    bound = await store.read(lambda tx: bindings.partitions(tx, service.name))
    if layout.lanes and bound not in (None, layout.lanes.partitions):
        raise TopologyError(
            f"{service.name} was laid out with {bound} lanes, this worker has"
            f" {layout.lanes.partitions}; set PF_PARTITIONS to the same for `fleet topology apply`,"
            " `fleet publisher` and `fleet worker`."
        )
