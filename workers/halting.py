"""Notices a handler that fails in the same way again and again, and halts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from fleet import clock
from fleet.core.decision import Ack, Fail
from fleet.core.failure import Failure
from fleet.core.streak import Streaks
from fleet.store.controls import Halt
from workers.holds import Holds
from workers.job import Job

BUG: Final = "logic"
"""The class of failures that no other event and no later time will spare."""

log = structlog.get_logger("fleet.workers")


class Halting:
    """Counts in this worker alone: that costs nothing, and the fleet hears of a halt in a second.

    `after` failures of the class `logic` with one fingerprint, and no success in between, halt
    their handler; 0: never. `halted` is called then.
    """

    def __init__(
        self, service: str, worker: str, after: int, holds: Holds, halted: Callable[[], None]
    ) -> None:
        self._service = service
        self._worker = worker
        self._holds = holds
        self._halted = halted
        self._streaks = Streaks(after)

    def decided(self, job: Job) -> None:
        """Take note of a decision, in the order in which handlers come to one."""
        if job.handler is None:
            return
        if isinstance(job.decision, Ack):
            if not job.decision.skipped:
                self._streaks.succeeded(job.handler.name)
        else:
            self._failed(job, job.handler.name, job.handler.name)

    def undone(self, job: Job) -> None:
        """Take note that what a handler wanted written raised."""
        if job.handler is not None:
            self._failed(job, job.handler.name, f"{job.handler.name} writes")

    def settled(self, job: Job) -> None:
        """Take note that what a handler wanted written is."""
        if job.handler is not None and job.context is not None and job.context.writes:
            self._streaks.succeeded(f"{job.handler.name} writes")

    def _failed(self, job: Job, handler: str, what: str) -> None:
        decision = job.decision
        if not isinstance(decision, Fail) or decision.failure.error_class != BUG:
            return
        if self._streaks.failed(what, decision.failure.fingerprint):
            self._halt(job, handler, decision.failure)

    def _halt(self, job: Job, handler: str, failure: Failure) -> None:
        if any(each.handler == handler for each in self._holds.halts):
            return
        reason = f"{failure.error_type}: {failure.message}"[:200]
        halt = Halt(
            service=self._service,
            handler=handler,
            fingerprint=failure.fingerprint,
            reason=reason,
            worker=self._worker,
            agent=job.event.agent_id if job.event else "",
            at_ms=clock.now_ms(),
        )
        log.error(
            "handler halted; its events wait until it is released", handler=handler, why=reason
        )
        self._holds.halt(halt)
        self._halted()
