"""Tells in the log what failed and what is tried again: of each kind the first, then some."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

from fleet.core.decision import Fail, Retry
from workers.job import Job

EVERY_S: Final = 60.0
KINDS: Final = 500
"""So many kinds are remembered: a handler that makes up error types must not fill the memory."""

log = structlog.get_logger("fleet.workers")


class Mishaps:
    """One line for the first of a kind, and after that at most one every `EVERY_S` seconds.

    A kind is a handler, a fingerprint, and whether there is another attempt. The line has the words
    of the last one, and as `count` how many there were since the line before.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[tuple[str, str, bool], tuple[float, int]] = {}

    def decided(self, job: Job) -> None:
        """Take note of a decision, and tell of it where that is due."""
        decision = job.decision
        if not isinstance(decision, Fail | Retry):
            return
        handler = job.handler.name if job.handler else ""
        kind = (handler, decision.failure.fingerprint, isinstance(decision, Fail))
        due, untold = self._kinds.get(kind, (-math.inf, 0))
        now = self._clock()
        if now < due:
            self._kinds[kind] = due, untold + 1
            return
        if len(self._kinds) >= KINDS:
            self._kinds.clear()
        self._kinds[kind] = now + EVERY_S, 0
        _tell(job, decision, handler, untold + 1)


def _tell(job: Job, decision: Fail | Retry, handler: str, count: int) -> None:
    failure = decision.failure
    words: dict[str, Any] = {"why": f"{failure.error_type}: {failure.message}", "count": count}
    if handler:
        words["handler"] = handler
    if job.where:
        words["at"] = job.where
    if job.event is not None:
        words |= {"event_id": job.event.event_id, "type": job.event.type}
    words |= {"attempt": job.headers.attempt, "queue": job.delivery.origin.queue}
    if isinstance(decision, Fail):
        log.warning("failed; it waits in the failed queue", **words)
    else:
        log.warning("failed; it is tried again", again_in_s=round(decision.delay, 1), **words)
