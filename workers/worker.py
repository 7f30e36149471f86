"""One replica: consumes its service's queues until it is asked to stop, then drains."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog

from fleet.amqp import frames
from fleet.amqp.connection import Link
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.store import lane_moves
from fleet.store.api import Store
from fleet.store.presence import Presence
from fleet.store.watched import Watched
from fleet.telemetry.health import Health
from topology import names
from workers.context import Startup
from workers.fed import check_fed
from workers.flow import Flow
from workers.holds import Holds
from workers.job import Job
from workers.loops import Loops, unless
from workers.middleware import Middleware, compose
from workers.pulse import Pulse
from workers.registry import Service
from workers.report import Report
from workers.settings import WorkerSettings
from workers.tally import Tally
from workers.tuning import Tuning
from workers.vitals import Vitals
from workers.watch import Watch, bounds

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
        self.health = Health(self.name)
        self._after = settled
        self._service = service
        self._settings = settings
        self._store = store = Watched(store)
        self._loops = Loops()
        self._consuming = Link(settings.amqp_url, f"{self.name} consumes")
        self._publishing = Link(settings.amqp_url, f"{self.name} publishes")
        self._publisher = ConfirmedPublisher(self._publishing, max_body=frames.ANY_BODY)
        holds, tally = Holds(service), Tally(service)
        self._flow = Flow(
            service,
            settings,
            loops=self._loops,
            link=self._consuming,
            publisher=self._publisher,
            store=store,
            call=compose(middlewares),
            holds=holds,
            tally=tally,
            settled=self._on_settled,
            halted=self._on_halted,
        )
        consumers = self._flow.consumers
        self._pulse = Pulse(
            loops=self._loops,
            store=store,
            presence=Presence(store, "worker", self.name, service.name),
            service=service,
            holds=holds,
            look=Report(tally, consumers, holds, self.health).pulse,
            obey=consumers.obey,
            publish=self._flow.publish,
        )
        self._vitals = Vitals(
            self.health,
            service,
            work_queue=names.work_queue(service.name),
            consumers=consumers,
            consuming=self._consuming,
            publisher=self._publisher,
            store=store,
            tally=tally,
        )
        limits = bounds(settings, store_folder)
        self._watch = Watch(limits, service.name, store, self._flow.publish)
        self._tuning = Tuning(service, tally, consumers, settings.concurrency)

    @property
    def consuming(self) -> list[str]:
        """The queues whose subscriptions stand now."""
        return self._flow.consumers.consuming

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
            self._start()
            try:
                log.info("worker ready")
                await self._until(stop)
            finally:
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
        self._flow.pool.app = await self._app(stack)

    async def _app(self, stack: AsyncExitStack) -> Any:
        if self._service.lifespan is None:
            return None
        startup = Startup(self._store, self.name, self._flow.publish)
        return await stack.enter_async_context(self._service.lifespan(startup))

    def _start(self) -> None:
        self._flow.start()
        self._loops.start(self._publisher.refused())
        self._loops.start(self._vitals.watch())
        self._loops.start(self._watch.run())
        if self._settings.prefetch == "auto":
            self._loops.start(self._tuning.run())

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

    async def _drain(self) -> None:
        """Finish what runs, hand back what was only prefetched, close the channels."""
        self.health.draining = True
        self._pulse.wake(say=True)
        handed_back = await self._flow.drain()
        await self._loops.stop()
        await self._flow.consumers.stop()
        log.info("worker drained", handed_back=handed_back)

    def _on_settled(self, job: Job) -> None:
        self.handled += 1
        if self._after is not None:
            self._after(job)

    def _on_halted(self) -> None:
        self._pulse.wake()
