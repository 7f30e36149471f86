"""Where a decision sends a message: a retry bucket, the failed queue, or the exchange."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleet.core.decision import Ack, Fail, Postpone, Retry
from fleet.core.envelope import PARENT_ID, event_headers, failure_headers
from fleet.core.events import Event, write_event
from fleet.core.failure import Failure
from fleet.core.signature import Keys
from topology import names
from topology.model import ServiceLayout
from workers.job import Job

_MS = 1000
_NOTHING: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Message:
    """Something to publish."""

    exchange: str
    key: str
    body: bytes
    headers: Mapping[str, Any]
    expiration_ms: int | None = None


class Roads:
    """The messages that settle the decisions of one service."""

    def __init__(self, layout: ServiceLayout, worker: str, keys: Keys | None = None) -> None:
        self._layout = layout
        self._keys = keys
        self._worker = worker

    @staticmethod
    def needed(job: Job) -> bool:
        """Whether anything has to be published before the job can be settled."""
        if isinstance(job.decision, Ack):
            return job.context is not None and bool(job.context.emitted)
        return isinstance(job.decision, Retry | Postpone | Fail)

    def messages(self, job: Job, now_ms: int) -> Iterator[Message]:
        """What to publish, in order; the same messages again if asked again."""
        match job.decision:
            case Ack():
                if job.context is not None:
                    parent, carried = job.context.event.event_id, job.context.carried
                    yield from (self.event(one, parent, carried) for one in job.context.emitted)
            case Retry(delay=delay, failure=failure):
                yield self._later(job, delay, self._why(job, failure, now_ms))
            case Postpone(delay=delay):
                yield self._later(job, delay, dict(job.delivery.headers))
            case Fail(failure=failure):
                key = names.failed(self._layout.name)
                headers = self._why(job, failure, now_ms)
                yield Message(names.DLX, key, job.delivery.body, headers)

    def event(
        self, event: Event, parent: str = "", carried: Mapping[str, str] = _NOTHING
    ) -> Message:
        """The message that publishes an event; it names the event that led to it.

        `carried` are headers beside its own. It is signed where there are keys.
        """
        headers: dict[str, Any] = {**carried, **event_headers(event)}
        if parent:
            headers[PARENT_ID] = parent
        lanes = self._layout.lanes
        if lanes is not None and event.type == lanes.type:
            key = str(event.payload.get(lanes.key, ""))
            headers[names.PARTITION] = names.partition(key, lanes.partitions)
        body = write_event(event)
        if self._keys is not None:
            headers = self._keys.stamped(headers, body)
        return Message(names.INGEST, event.type, body, headers)

    def _later(self, job: Job, delay: float, headers: dict[str, Any]) -> Message:
        delay_ms = max(1, round(delay * _MS))
        number = names.bucket(delay_ms, self._layout.buckets)
        return Message(
            names.REDELIVER,
            names.retry(self._layout.name, number),
            job.delivery.body,
            headers,
            expiration_ms=min(delay_ms, names.bucket_ms(number)),
        )

    def _why(self, job: Job, failure: Failure, now_ms: int) -> dict[str, Any]:
        named = event_headers(job.event) if job.event else {}
        return failure_headers(
            {**job.delivery.headers, **named},
            failure,
            attempt=job.headers.attempt,
            now_ms=now_ms,
            queue=job.delivery.origin.queue,
            worker=self._worker,
            handler=job.handler.name if job.handler else "",
        )
