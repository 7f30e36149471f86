"""Counts what becomes of deliveries, a group at a time: one at a time would be felt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from time import monotonic
from typing import Final

from prometheus_client import Counter as Increasing

from fleet import clock
from fleet.core.decision import Ack, Decision, Expire, Fail, Postpone
from fleet.telemetry import metrics
from workers.effects import outcome_of
from workers.job import Job
from workers.process import DONE
from workers.registry import Service

RETURNED: Final = "returned"


class Tally:
    """The metrics of one service's worker, and when it last settled anything."""

    def __init__(self, service: Service) -> None:
        self._service = service.name
        self._find = service.find
        self._types = metrics.bounded(service.handlers)
        self.ages = metrics.EVENT_AGE_SECONDS.labels(service.name)
        handlers = service.handlers.values()
        self.took = {
            each.name: metrics.HANDLER_SECONDS.labels(service.name, each.name) for each in handlers
        }
        """How long each handler took, by its name."""
        self.ends: dict[str, Counter[str]] = {each.name: Counter() for each in handlers}
        """What became of each handler's deliveries, by its name."""
        self._has_effects = any(each.effect == "once" for each in handlers)
        self.settled_at = monotonic()

    def settled(self, jobs: Sequence[Job]) -> None:
        """Count a group that was acked."""
        now_s = clock.now_ms() / 1000
        done = [job.event for job in jobs if job.decision is DONE and job.event is not None]
        for kind, count in Counter([event.type for event in done]).items():
            self._events(kind, "done").inc(count)
            if handler := self._find(kind):
                self.ends[handler.name]["done"] += count
        self.ages.extend([now_s - event.ts / 1000 for event in done])
        if len(done) < len(jobs):
            for job in jobs:
                if job.decision is not DONE:
                    self._count(job, outcome(job.decision))
        self.ages.sort()
        for buckets in self.took.values():
            buckets.sort()
        if self._has_effects:
            self._effects(jobs)
        self.settled_at = monotonic()

    def returned(self, job: Job) -> None:
        """Count a delivery that was not settled: it comes again."""
        self._count(job, RETURNED)

    def _count(self, job: Job, outcome: str) -> None:
        self._events(job.event.type if job.event else "", outcome).inc()
        if job.handler is not None:
            self.ends[job.handler.name][outcome] += 1
        if outcome in ("retried", "failed"):
            counter = metrics.RETRIES if outcome == "retried" else metrics.FAILURES
            counter.labels(self._service, _class(job.decision)).inc()
        if outcome == "done" and job.event is not None:
            self.ages.add((clock.now_ms() - job.event.ts) / 1000)

    def _events(self, kind: str, outcome: str) -> Increasing:
        known = kind if kind in self._types else metrics.OTHER
        return metrics.EVENTS.labels(known, self._service, outcome)

    def _effects(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.context is None or job.context.effect is None or job.event is None:
                continue
            if job.decision is not None:
                state = outcome_of(job.context.effect, job.decision).state
                kind = job.event.type if job.event.type in self._types else metrics.OTHER
                metrics.EFFECTS.labels(kind, state).inc()


def outcome(decision: Decision | None) -> str:
    """How a delivery with this decision is counted."""
    match decision:
        case None:
            return RETURNED
        case Ack(skipped=reason):
            return "skipped" if reason else "done"
        case Expire():
            return "expired"
        case Fail():
            return "failed"
        case Postpone():
            return "postponed"
        case _:
            return "retried"


def _class(decision: Decision | None) -> str:
    failure = getattr(decision, "failure", None)
    return failure.error_class if failure is not None else "logic"
