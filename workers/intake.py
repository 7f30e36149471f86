"""Takes deliveries in batches: reads them, asks the store about all of them at once, hands on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec

from fleet import clock
from fleet.amqp.delivery import Delivery
from fleet.core import canary
from fleet.core.decision import Ack, Fail
from fleet.core.dedup import Recent
from fleet.core.envelope import FRESH, read_headers
from fleet.core.errors import DataError
from fleet.core.events import MAX_BYTES, Event, read_event
from fleet.core.failure import describe, failure
from fleet.core.signature import Keys
from fleet.store import journal
from fleet.store.api import Candidate, Claim, Effect, Standing, Store
from workers.holds import Hold, Holds
from workers.job import Job
from workers.lanes import LaneKeeper
from workers.loops import Loops
from workers.patience import until_stored
from workers.pool import Pool
from workers.process import expiry
from workers.registry import Handler, Service

MAX_KEY = 256
HOLD_MARGIN_S = 10.0
"""How much longer than its deadline a handler has its effect to itself."""


class Intake:
    """Reads deliveries and hands them to `pool`, or to `finished` where a decision stands already.

    With `keys`, what is not signed with one of them is failed unread.
    Twins of an event that is in hand wait for it: the journal will know them then. In a lane what
    came after them waits with them.
    """

    def __init__(
        self,
        *,
        loops: Loops,
        service: Service,
        worker: str,
        store: Store,
        lanes: LaneKeeper,
        pool: Pool,
        finished: Callable[[Job], None],
        holds: Holds,
        most_bytes: int = MAX_BYTES,
        keys: Keys | None = None,
    ) -> None:
        self._service = service
        self._most_bytes = most_bytes
        self._keys = keys
        self._worker = worker
        self._store = store
        self._lanes = lanes
        self._pool = pool
        self._finished = finished
        self._holds = holds
        self._new: list[Delivery] = []
        self._wake = asyncio.Event()
        self._pure = Recent()
        self._in_hand: dict[str, list[Delivery]] = {}
        self._held_up: dict[str, str] = {}
        self._stopped = False
        self._loops = loops
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to take what is handed over."""
        self._task = self._loops.start(self._run())

    def hand_over(self, delivery: Delivery) -> None:
        """Take `delivery` with the next batch."""
        self._new.append(delivery)
        self._wake.set()

    def release(self, job: Job) -> None:
        """Note that `job` is settled: its twins may follow."""
        if job.event is None or job.handler is None:
            return
        if job.handler.effect == "pure" and isinstance(job.decision, Ack):
            self._pure.add(job.event.event_id)
        if job.in_hand:
            ahead = job.event.event_id
            if self._held_up:
                self._held_up = {lane: of for lane, of in self._held_up.items() if of != ahead}
            if waiting := self._in_hand.pop(ahead, None):
                self._new[:0] = waiting  # in a lane they are older than whatever came since
                self._wake.set()

    def waiting(self) -> list[Delivery]:
        """Take out what was not handed on yet."""
        taken = [*self._new, *(twin for twins in self._in_hand.values() for twin in twins)]
        self._new.clear()
        for twins in self._in_hand.values():
            twins.clear()
        return taken

    async def stop(self) -> None:
        """Finish the batch in hand and take no other. A caller in a hurry cancels this."""
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
            now_ms = clock.now_ms()
            read = (self._read(delivery, now_ms) for delivery in batch if delivery.is_ours)
            jobs = [job for job in read if job is not None]
            if jobs:
                await self._admit(jobs)

    def _read(self, delivery: Delivery, now_ms: int) -> Job | None:
        """The delivery as a job for the pool; None where a decision stands or it has to wait."""
        if (ahead := self._held_up.get(delivery.origin.queue)) is not None:
            self._in_hand[ahead].append(delivery)
            return None
        job = Job(delivery, FRESH if delivery.is_first else read_headers(delivery.headers))
        if self._keys and (trouble := self._keys.trouble(delivery.headers, delivery.body)):
            job.decision = Fail(failure("data", "Signature", trouble))
            self._finished(job)
            return None
        try:
            job.event = event = read_event(
                delivery.body, now_ms, payload=False, most=self._most_bytes
            )
            job.handler = handler = self._service.find(event.type)
            if event.type == canary.TYPE:
                job.decision = Ack(skipped=canary.SKIPPED)
            elif handler is None:
                job.decision = Fail(failure("data", "UnknownType", f"nobody handles {event.type}"))
            elif self._holds.any and (hold := self._hold(delivery, event, handler)):
                job.decision = hold.postponed(now_ms, random.uniform)
            elif self._waits(job, event, handler):
                return None
            else:
                job.payload = handler.read(event)
                job.key = self._lane_key(event) if delivery.origin.is_lane else ""
                # What may have had its effect is asked about first, however old it is.
                job.decision = expiry(job, now_ms) if handler.key is None else None
        except Exception as error:  # noqa: BLE001 - a payload's own checks may raise anything
            job.decision = Fail(describe(error))
        if job.decision is None:
            return job
        self._finished(job)
        return None

    def _lane_key(self, event: Event) -> str:
        lanes = self._service.lanes
        return str(event.payload.get(lanes.key, "")) if lanes else ""

    def _hold(self, delivery: Delivery, event: Event, handler: Handler) -> Hold | None:
        """What withholds it; a lane whose handler is withheld is closed as a whole."""
        return None if delivery.origin.is_lane else self._holds.of(event.type, handler)

    def _waits(self, job: Job, event: Event, handler: Handler) -> bool:
        """Whether the event is in hand already: then it is looked at again once that is settled."""
        if not _is_known(job, handler):
            if event.event_id in self._pure:
                job.decision = Ack(skipped="seen")
                self._finished(job)
                return True
            return False
        twins = self._in_hand.get(event.event_id)
        if twins is not None:
            twins.append(job.delivery)
            if job.delivery.origin.is_lane and job.delivery.redelivered:
                # Its channel was lost: what follows it must not overtake it.
                self._held_up[job.delivery.origin.queue] = event.event_id
            return True
        self._in_hand[event.event_id] = []
        job.in_hand = True
        return False

    async def _admit(self, jobs: Sequence[Job]) -> None:
        known = [job for job in jobs if _is_known(job, cast("Handler", job.handler))]
        queues = {job.delivery.origin.queue for job in known if _is_in_lane(job)}
        if queues:
            await until_stored(lambda: self._lanes.hold(queues))
        if known:
            # After the lanes are held: what their last owner commits until then is seen.
            await self._ask(known)
        starts = await self._starts([job for job in jobs if job.delivery.is_suspect])
        for job in jobs:
            lane = self._lanes.get(job.delivery.origin.queue) if queues else None
            job.epoch = lane.epoch if lane else 0
            self._pool.put(job, starts.get(cast("Event", job.event).event_id, 0))

    async def _ask(self, jobs: Sequence[Job]) -> None:
        """Learn each job's standing; the effect of one that is new is reserved for it."""

        async def admit() -> list[Standing]:
            # Anew each time: a hold counts from when it is written, not from when it was wished.
            now_ms = clock.now_ms()
            return await self._store.admit([self._candidate(job, now_ms) for job in jobs], now_ms)

        for job, standing in zip(jobs, await until_stored(admit), strict=True):
            job.standing = standing

    def _candidate(self, job: Job, now_ms: int) -> Candidate:
        handler, event = cast("Handler", job.handler), cast("Event", job.event)
        claim = None
        if handler.key is not None and job.decision is None:
            try:
                key = _sound(handler.key(job.payload))
            except Exception as error:  # noqa: BLE001 - a key function is the user's code
                job.decision = Fail(describe(error))
                return Candidate(self._service.name, event.event_id, job.headers.replay_count)
            job.held_until_ms = now_ms + int((handler.deadline + HOLD_MARGIN_S) * 1000)
            # Two events of one key in one worker are two holders.
            job.holder = f"{self._worker} {event.event_id}"
            claim = Claim(
                key=key,
                kind=event.type,
                holder=job.holder,
                held_until_ms=job.held_until_ms,
                detail=msgspec.json.encode(event.payload).decode(),
            )
        return Candidate(self._service.name, event.event_id, job.headers.replay_count, claim)

    async def renew(self, job: Job) -> None:
        """Claim the effect of a job again that waited longer than the claim was good for.

        If nobody had it in between, it is still as fresh as it was: we have not called anybody.
        """
        was = job.standing
        await self._ask([job])
        now = job.standing
        if was.fresh and _is_same_claim(was.effect, now.effect):
            job.standing = Standing(effect=now.effect, fresh=True)

    async def started(self, job: Job) -> int:
        """Commit that a delivery which came back is about to run; how often it was, with this."""
        job.started = True
        event_id = cast("Event", job.event).event_id
        now_ms = clock.now_ms()
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


def _is_in_lane(job: Job) -> bool:
    """Whether its lane must be ours; what comes again by itself is not worth taking one."""
    return job.delivery.origin.is_lane and job.delivery.is_ours


def _is_known(job: Job, handler: Handler) -> bool:
    """Whether the journal is asked: of what is pure it knows the replays, and no other."""
    return handler.effect != "pure" or job.headers.replay_count > 0


def _is_same_claim(ours: Effect | None, found: Effect | None) -> bool:
    """Whether the row is as we claimed it. A name may have gone to another process since."""
    return (
        ours is not None
        and found is not None
        and (found.state, found.holder, found.attempts) == ("reserved", ours.holder, ours.attempts)
    )


def _sound(key: Any) -> str:
    """An effect key that every store keeps as it is; raises DataError for any other."""
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY or not key.isprintable():
        raise DataError(f"an effect key is 1 to {MAX_KEY} printable characters")
    return key
