"""Takes deliveries in batches: reads them, asks the store about all of them at once, hands on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from fleet.amqp.delivery import Delivery
from fleet.core.decision import Ack, Fail
from fleet.core.dedup import Recent
from fleet.core.envelope import FRESH, read_headers
from fleet.core.errors import DataError
from fleet.core.events import Event, read_event
from fleet.core.failure import describe, failure
from fleet.store import journal
from fleet.store.api import Candidate, Claim, Store
from workers.job import Job
from workers.lanes import LaneKeeper
from workers.patience import until_stored
from workers.pool import Pool
from workers.process import expiry
from workers.registry import Handler, Service

HOLD_MARGIN_S = 10.0
"""How much longer than its deadline a handler has its effect to itself."""


class Intake:
    """Reads deliveries and hands them to `pool`, or to `finished` where a decision stands already.

    Twins of an event that is in hand wait for it: the journal will know them then.
    """

    def __init__(
        self,
        *,
        service: Service,
        worker: str,
        store: Store,
        lanes: LaneKeeper,
        pool: Pool,
        finished: Callable[[Job], None],
    ) -> None:
        self._service = service
        self._worker = worker
        self._store = store
        self._lanes = lanes
        self._pool = pool
        self._finished = finished
        self._new: list[Delivery] = []
        self._wake = asyncio.Event()
        self._pure = Recent()
        self._in_hand: dict[str, list[Delivery]] = {}
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin to take what is handed over; the task ends by `stop` or by an error."""
        self._task = asyncio.create_task(self._run(), name="intake")
        return self._task

    def hand_over(self, delivery: Delivery) -> None:
        """Take `delivery` with the next batch."""
        self._new.append(delivery)
        self._wake.set()

    def release(self, job: Job) -> None:
        """Note that `job` is settled: its twins may follow."""
        if job.event is None or job.handler is None:
            return
        if job.handler.effect == "pure":
            if isinstance(job.decision, Ack):
                self._pure.add(job.event.event_id)
            return
        for twin in self._in_hand.pop(job.event.event_id, ()):
            self.hand_over(twin)

    def waiting(self) -> list[Delivery]:
        """Take out what was not handed on yet."""
        taken = [*self._new, *(twin for twins in self._in_hand.values() for twin in twins)]
        self._new.clear()
        for twins in self._in_hand.values():
            twins.clear()
        return taken

    async def stop(self) -> None:
        """Finish the batch in hand and take no other."""
        self._stopped = True
        self._wake.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._stopped:
                return
            batch, self._new = self._new, []
            now_ms = time.time_ns() // 1_000_000
            read = (self._read(delivery, now_ms) for delivery in batch if delivery.is_ours)
            jobs = [job for job in read if job is not None]
            if jobs:
                await self._admit(jobs, now_ms)

    def _read(self, delivery: Delivery, now_ms: int) -> Job | None:
        """The delivery as a job for the pool; None where a decision stands or it has to wait."""
        job = Job(delivery, FRESH if delivery.is_first else read_headers(delivery.headers))
        try:
            job.event = event = read_event(delivery.body, now_ms, payload=False)
            job.handler = handler = self._service.find(event.type)
            if handler is None:
                job.decision = Fail(failure("data", "UnknownType", f"nobody handles {event.type}"))
            else:
                job.payload = handler.read(event)
                job.key = self._lane_key(event) if delivery.origin.is_lane else ""
                job.decision = expiry(job, now_ms)
        except DataError as error:
            job.decision = Fail(describe(error))
        if job.decision is None and job.handler is not None and job.event is not None:
            return self._hold_back(job, job.event, job.handler)
        self._finished(job)
        return None

    def _lane_key(self, event: Event) -> str:
        lanes = self._service.lanes
        return str(event.payload.get(lanes.key, "")) if lanes else ""

    def _hold_back(self, job: Job, event: Event, handler: Handler) -> Job | None:
        if handler.effect == "pure":
            if event.event_id in self._pure and not job.headers.replay_count:
                job.decision = Ack(skipped="seen")
                self._finished(job)
                return None
            return job
        twins = self._in_hand.get(event.event_id)
        if twins is not None:
            twins.append(job.delivery)
            return None
        self._in_hand[event.event_id] = []
        return job

    async def _admit(self, jobs: Sequence[Job], now_ms: int) -> None:
        known = [job for job in jobs if cast("Handler", job.handler).effect != "pure"]
        if known:
            await self._ask(known, now_ms)
        queues = {job.delivery.origin.queue for job in known if job.delivery.origin.is_lane}
        if queues:
            await until_stored(lambda: self._lanes.hold(queues))
        starts = await self._starts([job for job in jobs if job.delivery.redelivered])
        for job in jobs:
            lane = self._lanes.get(job.delivery.origin.queue) if queues else None
            job.epoch = lane.epoch if lane else 0
            self._pool.put(job, starts.get(cast("Event", job.event).event_id, 0))

    async def _ask(self, jobs: Sequence[Job], now_ms: int) -> None:
        candidates = []
        for job in jobs:
            try:
                candidates.append(self._candidate(job, now_ms))
            except Exception as error:  # noqa: BLE001 - a key function is the user's code
                job.decision = Fail(describe(error))
                candidates.append(self._candidate(job, now_ms))
        standings = await until_stored(lambda: self._store.admit(candidates, now_ms))
        for job, standing in zip(jobs, standings, strict=True):
            job.standing = standing

    def _candidate(self, job: Job, now_ms: int) -> Candidate:
        handler, event = cast("Handler", job.handler), cast("Event", job.event)
        claim = None
        if handler.key is not None and job.decision is None:
            job.held_until_ms = now_ms + int((handler.deadline + HOLD_MARGIN_S) * 1000)
            # Two events of one key in one worker are two holders.
            job.holder = f"{self._worker} {event.event_id}"
            claim = Claim(
                key=handler.key(job.payload),
                kind=event.type,
                holder=job.holder,
                held_until_ms=job.held_until_ms,
                detail=msgspec.json.encode(event.payload).decode(),
            )
        return Candidate(self._service.name, event.event_id, job.headers.replay_count, claim)

    async def renew(self, job: Job) -> None:
        """Claim the effect of a job again that waited longer than the claim was good for."""
        await self._ask([job], time.time_ns() // 1_000_000)

    async def started(self, job: Job) -> int:
        """Commit that a delivery which came back is about to run; how often it was, with this."""
        job.started = True
        event_id = cast("Event", job.event).event_id
        now_ms = time.time_ns() // 1_000_000
        return await until_stored(
            lambda: self._store.run(
                lambda tx: journal.started(tx, self._service.name, event_id, self._worker, now_ms)
            )
        )

    async def _starts(self, jobs: Sequence[Job]) -> dict[str, int]:
        if not jobs:
            return {}
        ids = [cast("Event", job.event).event_id for job in jobs]
        return await until_stored(
            lambda: self._store.read(lambda tx: journal.starts(tx, self._service.name, ids))
        )
