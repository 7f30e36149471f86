"""Carries decisions out: publish with confirm, commit, then ack. Nothing is acked before that."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import cast

import structlog

from fleet import clock
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.backoff import backoff
from fleet.core.decision import Ack, Fail, Postpone
from fleet.core.errors import PublishError, PublishNacked
from fleet.core.events import Event
from fleet.core.failure import describe
from fleet.store.api import Settled, Store, Verdict
from fleet.telemetry.log import about
from workers.job import Job
from workers.loops import Loops
from workers.patience import until_stored
from workers.process import in_lane
from workers.registry import Handler
from workers.roads import Roads
from workers.rows import Rows, is_journaled, is_sent
from workers.tally import Tally

log = structlog.get_logger("fleet.workers")

PATIENCE_S = 5.0
"""How long a job waits for room for its events before it makes room itself."""
GROUP = 64
LINGER_S = 0.01
"""A group of fewer than GROUP waits so long for more. At a low rate a commit for each event would
have the disk busy all the time, and the broker's own writes behind it: twice the latency."""


class Settler:
    """Settles jobs in groups: one transaction and one ack per channel for all that is ready.

    `settled` is called with each job that is done with, acked or not; `fenced` with the queue of a
    lane that another worker took; `undone` with a job whose writes raised.
    """

    def __init__(
        self,
        *,
        loops: Loops,
        service: str,
        worker: str,
        store: Store,
        publisher: ConfirmedPublisher,
        roads: Roads,
        settled: Callable[[Job], None],
        fenced: Callable[[str], None],
        undone: Callable[[Job], None],
        tally: Tally,
    ) -> None:
        self._loops = loops
        self._rows_of = Rows(service, worker)
        self._store = store
        self._publisher = publisher
        self._roads = roads
        self._settled = settled
        self._fenced = fenced
        self._undone = undone
        self._tally = tally
        self._ready: list[Job] = []
        self._behind: dict[str, deque[Job]] = {}
        self._open = 0
        self._wake = asyncio.Event()
        self._full = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def start(self) -> None:
        """Begin to settle what is added."""
        self._loops.start(self._run())

    def add(self, job: Job) -> None:
        """Settle `job`, which has its decision, as soon as may be; without one it is dropped."""
        self._open += 1
        self._idle.clear()
        behind = self._behind.get(job.delivery.origin.queue)
        if behind is not None and job.delivery.origin.is_lane:
            behind.append(job)
        else:
            self._start(job)

    async def drained(self) -> None:
        """Return once everything added is settled."""
        await self._idle.wait()

    def _start(self, job: Job) -> None:
        if not _is_kept(job):
            self._abandon(job)
        elif self._roads.needed(job) and is_sent(job):
            self._hold_lane(job)
            self._loops.start(self._send(job))
        else:
            self._queue(job)

    def _end(self, job: Job) -> None:
        self._open -= 1
        if not self._open:
            self._idle.set()
        self._settled(job)

    def _abandon(self, job: Job) -> None:
        """Drop a job that has to come again; its channel is given up if it still stands."""
        if job.delivery.is_ours:
            self._fenced(job.delivery.origin.queue)
        self._drop(job)

    def _drop(self, job: Job) -> None:
        self._tally.returned(job)
        self._end(job)

    def _hold_lane(self, job: Job) -> None:
        """Let what follows in the lane wait: its state holds what this job has not settled yet."""
        if job.delivery.origin.is_lane:
            self._behind[job.delivery.origin.queue] = deque()

    def _release_lane(self, job: Job) -> None:
        queue = job.delivery.origin.queue
        behind = self._behind.pop(queue, None) if job.delivery.origin.is_lane else None
        while behind:
            self._start(behind.popleft())
            if queue in self._behind:
                self._behind[queue].extend(behind)
                return

    def _queue(self, job: Job) -> None:
        self._ready.append(job)
        self._wake.set()
        # Who runs alone has everybody waiting.
        if len(self._ready) >= GROUP or job.passed is not None:
            self._full.set()

    async def _send(self, job: Job) -> None:
        """Publish what the decision asks for; until that is confirmed the delivery stays ours."""
        about.set(job.context)
        began = time.monotonic()
        for delay in backoff(random.uniform, first=0.2, cap=10.0):
            try:
                await self._publish(job)
                break
            except PublishError as error:
                log.warning("not published yet", reason=str(error), queue=_queue_of(job))
                if job.passed is not None:
                    job.passed.set()  # the broker may have no room until others run
                if isinstance(error, PublishNacked) and time.monotonic() - began > PATIENCE_S:
                    _step_back(job)
                await asyncio.sleep(delay)
            except Exception as error:  # noqa: BLE001 - whatever it is, the delivery is settled
                _give_up(job, error)
            if not is_sent(job) or job.unsendable:
                break
        if _is_kept(job):
            self._queue(job)
        else:
            self._drop(job)
        self._release_lane(job)

    async def _publish(self, job: Job) -> None:
        for message in self._roads.messages(job, clock.now_ms()):
            await self._publisher.publish(
                message.exchange,
                message.key,
                message.body,
                headers=message.headers,
                expiration_ms=message.expiration_ms,
            )

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if len(self._ready) < GROUP:
                await self._more()
            self._full.clear()
            batch, self._ready = self._ready, []
            await self._settle(batch)

    async def _more(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await self._full.wait()

    async def _settle(self, batch: Sequence[Job]) -> None:
        acked = [job for job in batch if not is_journaled(job)]
        journaled, rows = self._rows([job for job in batch if is_journaled(job)])
        if rows:
            verdicts = await until_stored(lambda: self._store.commit(rows))
            for job, verdict in zip(journaled, verdicts, strict=True):
                self._apply(job, verdict, acked)
        await self._ack(acked)

    def _apply(self, job: Job, verdict: Verdict, acked: list[Job]) -> None:
        if isinstance(verdict, Exception):
            self._rolled_back(job, verdict)
        elif verdict == "fenced":
            self._abandon(job)
        else:
            acked.append(job)

    async def _ack(self, jobs: Sequence[Job]) -> None:
        """Settle these at the broker. They end only then: a drain waits for the acks too."""
        for job in jobs:
            if job.unsendable:
                job.delivery.dead_letter()
            else:
                job.delivery.ack()
        for line in {job.delivery.line for job in jobs}:
            await line.flush()
        self._tally.settled(jobs)
        for job in jobs:
            self._end(job)

    def _rolled_back(self, job: Job, error: Exception) -> None:
        """What the handler wanted written raised: decide as if the handler had.

        Where an effect is done there is no second attempt, for it would find the effect done and
        never write what failed here.
        """
        handler, event = cast("Handler", job.handler), cast("Event", job.event)
        if job.context is not None and job.context.effect is not None:
            job.decision = Fail(describe(error))
        else:
            decision = handler.retry.decide(
                error,
                attempt=job.headers.attempt,
                age=(clock.now_ms() - event.ts) / 1000,
                uniform=random.uniform,
            )
            job.decision = in_lane(decision) if job.delivery.origin.is_lane else decision
        job.context = None
        self._undone(job)
        self._start(job)

    def _rows(self, jobs: Sequence[Job]) -> tuple[list[Job], list[Settled]]:
        """What to commit, and for which jobs; what cannot be written is decided anew."""
        saved: set[tuple[str, str]] = set()
        rows: list[tuple[Job, Settled]] = []
        for job in reversed(jobs):
            try:
                rows.append((job, self._rows_of.row(job, saved)))
            except Exception as error:  # noqa: BLE001 - a state of the user's that is no JSON
                self._rolled_back(job, error)
        rows.reverse()
        return [job for job, _ in rows], [row for _, row in rows]


def _is_kept(job: Job) -> bool:
    """Whether there is anything to settle: not for what was dropped, or comes again unchanged."""
    if job.started and not job.delivery.is_ours:
        return True  # its start is taken back: it did not kill us
    if job.decision is None:
        return False
    return is_sent(job) or (job.context is not None and job.context.effect is not None)


def _step_back(job: Job) -> None:
    """Take a job whose events find no room back from the handler, to come again later.

    If all that is prefetched waited for room in the very queue it came from, nobody would ever
    make any. An effect that is done, and a lane, wait.
    """
    context, is_lane = job.context, job.delivery.origin.is_lane
    if isinstance(job.decision, Ack) and context and not context.effect and not is_lane:
        job.decision = Postpone(PATIENCE_S, "its events find no room")
        job.context = None


def _give_up(job: Job, error: Exception) -> None:
    """Fail what cannot be published; what cannot even be failed is the broker's to park."""
    log.error("cannot be published", reason=str(error), queue=_queue_of(job))
    job.unsendable = isinstance(job.decision, Fail)
    job.decision = Fail(describe(error))


def _queue_of(job: Job) -> str:
    return job.delivery.origin.queue
