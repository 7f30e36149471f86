"""The bridge: events from a source onto the exchange, none lost, none passed over."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import structlog

from fleet import clock
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.errors import StateError
from fleet.core.signature import Keys
from fleet.store import cursors
from fleet.store.api import Lease, Store
from publisher.beside import Beside
from publisher.book import Book
from publisher.lanes import check_lanes
from publisher.lease import Leadership
from publisher.outbox import Outbox, Traces
from publisher.reading import Reader, Ticked
from publisher.settings import Limits
from publisher.sources.api import Gap, Source
from publisher.telling import Telling
from publisher.vitals import Vitals

log = structlog.get_logger("publisher")


class Bridge:
    """Publishes what `source` gives while it holds the lease, and stands by while it does not.

    The cursor in the store moves only over the contiguous settled prefix. A term that ends any
    other way than by `stop` saves nothing more; the next one begins at the saved cursor, and what
    is published twice then is absorbed by the journal of its readers. `beside` works while the
    lease is held; `ticked` hears of each tick. What is published is signed with `keys`.
    """

    def __init__(
        self,
        source: Source,
        publisher: ConfirmedPublisher,
        store: Store,
        leadership: Leadership,
        limits: Limits,
        *,
        beside: Sequence[Beside] = (),
        ticked: Ticked | None = None,
        traces: Traces | None = None,
        keys: Keys | None = None,
    ) -> None:
        self._keys = keys
        self._source = source
        self._beside = beside
        self._ticked = ticked
        self._traces = traces
        self._publisher = publisher
        self._store = store
        self._leadership = leadership
        self._limits = limits
        self._stopping = asyncio.Event()
        self._unreadable = Telling("unreadable frames went to quarantine")
        self.vitals = self._vitals = Vitals(source, publisher)
        self.health = self._vitals.health

    def stop(self) -> None:
        """Read no more; `run` returns once what is in flight is settled, or the grace is over."""
        self.health.draining = True
        self._stopping.set()

    async def run(self) -> None:
        """Work until stopped.

        Raises SettingsError where the source refuses our credentials, BrokerError where the broker
        lets us not publish, TopologyError where a service has another number of lanes than we
        spread ticks over.
        """
        await check_lanes(self._store, self._limits.partitions)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            while not stopping.done():
                taking = asyncio.create_task(self._leadership.take())
                await asyncio.wait([taking, stopping], return_when=asyncio.FIRST_COMPLETED)
                if taking.done():
                    try:
                        await self._lead(taking.result(), stopping)
                    finally:
                        await self._leadership.release()
                else:
                    await _end([taking])
        finally:
            stopping.cancel()

    async def _lead(self, lease: Lease, stopping: asyncio.Task[Any]) -> None:
        try:
            # Again: while we stood by, the topology may have been applied anew.
            await check_lanes(self._store, self._limits.partitions)
            cursor = await self._store.read(partial(cursors.get, source=self._source.name))
        except StateError as error:
            log.warning("cursor not to be had", reason=str(error))
            await asyncio.sleep(self._limits.save_every_s)
            return
        log.info("bridge leads", source=self._source.name, cursor=cursor, epoch=lease.epoch)
        await self._term(lease, cursor, stopping)

    async def _term(self, lease: Lease, cursor: str, stopping: asyncio.Task[Any]) -> None:
        outbox = Outbox(
            self._publisher,
            unsettled=self._limits.unsettled,
            unsaved=self._limits.unsaved,
            source=self._source.name,
            traces=self._traces,
        )
        book = Book(self._store, self._source.name, lease)
        self._vitals.leads(outbox, book)
        reading = _task(self._read(outbox, cursor))
        others = [
            _task(outbox.resend()),
            _task(self._save_regularly(outbox, book)),
            _task(self._leadership.keep()),
            _task(self._publisher.refused()),
            *(_task(each.run()) for each in self._beside),
        ]
        ends = [reading, stopping, *others]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            await _end([reading])
            if self._leadership.held:
                await self._finish(outbox, book)
            for each in done:
                each.result()
        finally:
            self._vitals.ended()
            self._unreadable.due(now=True)
            outbox.close()
            await _end([reading, *others])

    async def _read(self, outbox: Outbox, cursor: str) -> None:
        reader = Reader(
            self._source.name,
            cursor,
            partitions=self._limits.partitions,
            most_bytes=self._limits.most_bytes,
            ticked=self._ticked,
            keys=self._keys,
        )
        async with aclosing(self._source.frames(lambda: reader.cursor)) as arrivals:
            async for arrival in arrivals:
                if isinstance(arrival, Gap):
                    log.warning("events missed", after=arrival.after, reason=arrival.reason)
                    reader.gap(arrival)
                    self._tell_gap()
                    continue
                if not outbox.open:
                    await outbox.room()
                posting = reader.read(arrival, clock.now_ms())
                if posting.quarantined:
                    self._unreadable.note(reason=posting.quarantined.reason[:200])
                    self._tell_gap()
                outbox.put(posting)

    def _tell_gap(self) -> None:
        for each in self._beside:
            each.gap()

    async def _save_regularly(self, outbox: Outbox, book: Book) -> None:
        while True:
            await asyncio.sleep(self._limits.save_every_s)
            self._unreadable.due()
            # With a full book the outbox keeps the rest, and through it the source waits.
            if book.unsaved < self._limits.unsaved:
                book.add(outbox.take())
            if not await book.save():
                await self._leadership.renew()

    async def _finish(self, outbox: Outbox, book: Book) -> None:
        try:
            async with asyncio.timeout(self._limits.grace_s):
                await outbox.settled()
        except TimeoutError:
            log.warning("stopped with unsettled events: they come again", count=outbox.unsettled)
        book.add(outbox.take())
        await book.save()


def _task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(work)


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
