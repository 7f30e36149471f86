"""Runs jobs: many at a time from the work queue, one at a time in a lane, suspects alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any, cast

from fleet import clock
from fleet.core.decision import Ack, Decision, Fail, Postpone
from fleet.core.events import Event
from fleet.core.failure import failure
from fleet.telemetry.histogram import Buckets
from fleet.telemetry.log import about
from workers.context import Context
from workers.gate import Gate
from workers.holds import Holds
from workers.job import Job
from workers.lanes import Lane, LaneKeeper
from workers.loops import Loops
from workers.middleware import Call
from workers.process import effecting, expiry, in_lane, judge, process
from workers.registry import Handler

MAX_STARTS = 3
"""Starts after which a delivery that always comes back is failed: it kills its worker."""
_TURN = 64
"""Jobs a slot runs before it lets the loop read and write again."""

Started = Callable[[Job], Awaitable[int]]
Renew = Callable[[Job], Awaitable[None]]


class Pool:
    """`concurrency` slots for the work queue, one task for each lane, one for suspects.

    `finished` is called with each job that has its decision. `started` commits that a suspect is
    about to run and returns how often it was; `renew` claims an effect again whose hold ran out
    while the job waited.
    """

    def __init__(
        self,
        *,
        loops: Loops,
        concurrency: int,
        call: Call,
        worker: str,
        lanes: LaneKeeper,
        finished: Callable[[Job], None],
        started: Started,
        renew: Renew,
        took: Mapping[str, Buckets],
        holds: Holds,
    ) -> None:
        self._call = call
        self._worker = worker
        self._lanes = lanes
        self._finished = finished
        self._started = started
        self._renew = renew
        self._took = took
        self._holds = holds
        self._gate = Gate()
        self._work: asyncio.Queue[Job] = asyncio.Queue()
        self._suspects: asyncio.PriorityQueue[tuple[int, int, Job]] = asyncio.PriorityQueue()
        self._lane_work: dict[str, asyncio.Queue[Job]] = {}
        self._at_gate: dict[Job, None] = {}
        self._count = 0
        self._loops = loops
        self._concurrency = concurrency
        self.app: Any = None

    def start(self) -> None:
        """Begin to run what is put in."""
        for _ in range(self._concurrency):
            self._loops.start(self._run_all(self._work))
        self._loops.start(self._run_suspects())

    def put(self, job: Job, starts: int) -> None:
        """Run `job` when its turn comes; `starts` counts for one that came back."""
        if job.delivery.origin.is_lane:
            self._lane(job.delivery.origin.queue).put_nowait(job)
        elif job.delivery.is_suspect:
            self._count += 1
            self._suspects.put_nowait((starts, self._count, job))
        else:
            self._work.put_nowait(job)

    def waiting(self) -> list[Job]:
        """Take out what has not begun to run."""
        jobs, self._at_gate = list(self._at_gate), {}
        for queue in (self._work, *self._lane_work.values()):
            jobs.extend(_empty(queue))
        return jobs + [entry[2] for entry in _empty(self._suspects)]

    async def idle(self) -> None:
        """Return once nothing runs."""
        async with self._gate.alone():
            pass

    def _lane(self, queue: str) -> asyncio.Queue[Job]:
        work = self._lane_work.get(queue)
        if work is None:
            work = self._lane_work[queue] = asyncio.Queue()
            self._loops.start(self._run_all(work))
        return work

    async def _run_all(self, work: asyncio.Queue[Job]) -> None:
        gate, turn = self._gate, 0
        while True:
            job = await work.get()
            if job.delivery.is_suspect:
                await self._run_alone(job)
                continue
            if not gate.is_open:
                self._at_gate[job] = None
                await gate.opened()
                if not self._goes_in(job):
                    continue
            gate.enter()
            try:
                await self._run(job)
            finally:
                gate.leave()
            turn += 1
            if turn % _TURN == 0:
                await asyncio.sleep(0)

    async def _run_suspects(self) -> None:
        while True:
            _, _, job = await self._suspects.get()
            await self._run_alone(job)
            await asyncio.sleep(0)  # who waits at the gate has a turn between two suspects

    async def _run_alone(self, job: Job) -> None:
        """Run a job that came back: a start is on record first, so that a killer is known.

        It is alone until it is settled (or has to wait for the broker to take its messages): what
        waited for its commit would come back with a killer that follows, and count a start more
        each time.
        """
        job.passed = asyncio.Event()
        self._at_gate[job] = None
        async with self._gate.alone():
            if not self._goes_in(job):
                return
            if job.delivery.is_ours and job.decision is None and not self._judged(job):
                starts = await self._started(job)
                if starts > MAX_STARTS:
                    reason = f"it came back {MAX_STARTS} times without an end: it kills its worker"
                    job.decision = Fail(failure("resource", "WorkerKilled", reason))
            await self._run(job)
            await job.passed.wait()

    def _goes_in(self, job: Job) -> bool:
        """Whether a job that waited at the gate is still to run: a drain may have taken it out."""
        if job not in self._at_gate:
            return False
        del self._at_gate[job]
        return True

    def _judged(self, job: Job) -> bool:
        """Whether a decision stands that needs no handler."""
        if job.decision is None:
            job.decision = judge(job, clock.now_ms())
        if job.decision is None and self._holds.any:
            job.decision = self._withheld(job, clock.now_ms())
        return job.decision is not None

    def _withheld(self, job: Job, now_ms: int) -> Decision | None:
        """The decision for what was paused while it waited here; a closed lane goes back itself."""
        event, handler = cast("Event", job.event), cast("Handler", job.handler)
        hold = self._holds.of(event.type, handler)
        if hold is None or job.delivery.origin.is_lane:
            return None
        # With a context, so that the effect which is reserved for it is let go of.
        job.context = self._context(job, now_ms, None)
        return hold.postponed(now_ms, random.uniform)

    async def _run(self, job: Job) -> None:
        if not self._judged(job):
            if job.delivery.is_ours:
                await self._handle(job)
            else:
                self._let_go(job)
        if job.delivery.origin.is_lane and job.delivery.is_ours and job.decision is not None:
            job.decision = in_lane(job.decision)
        self._finished(job)

    def _let_go(self, job: Job) -> None:
        """Settle the effect of what comes again by itself, if it has one: nobody has begun it.

        Whoever has the message next would otherwise wait for our hold, and then have to ask.
        """
        if job.standing.effect is not None:
            job.decision = Postpone(0, "its channel was lost")
            job.context = self._context(job, clock.now_ms(), None)

    async def _handle(self, job: Job) -> None:
        handler, now_ms = cast("Handler", job.handler), clock.now_ms()
        if job.held_until_ms and now_ms + handler.deadline * 1000 > job.held_until_ms:
            await self._renew(job)
            if self._judged(job):
                return
        lane = self._lanes.get(job.delivery.origin.queue) if handler.state is not None else None
        if handler.state is not None and (lane is None or lane.epoch != job.epoch):
            return  # the lane was taken; what we know of its state is not the truth
        job.context = context = self._context(job, now_ms, lane)
        # It may have waited since it was read; an effect that may be under way is asked about.
        is_certain = context.effect is None or context.effect.before is None
        job.decision = expiry(job, now_ms) if is_certain else None
        if job.decision is None:
            about.set(context)
            began = perf_counter()
            job.decision = await process(job, context, self._call)
            self._took[handler.name].add(perf_counter() - began)
        if context.kept is not None and isinstance(job.decision, Ack) and not self._lanes.keep(job):
            job.decision = None  # it is not done without its state

    def _context(self, job: Job, now_ms: int, lane: Lane | None) -> Context:
        handler = cast("Handler", job.handler)
        return Context(
            cast("Event", job.event),
            attempt=job.headers.attempt,
            is_replay=job.headers.replay_count > 0,
            allow_stale=job.headers.allow_stale,
            now_ms=now_ms,
            worker=self._worker,
            app=self.app,
            state=lane.states.get(job.key, (0, None))[1] if lane else None,
            state_type=handler.state,
            effect=effecting(job),
            delivery=job.delivery,
        )


def _empty(queue: asyncio.Queue[Any]) -> list[Any]:
    return [queue.get_nowait() for _ in range(queue.qsize())]
