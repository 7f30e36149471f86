"""A span around every handler, and one for the settlement behind it."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Any

from opentelemetry.trace import Span, use_span

from fleet.core.decision import Ack, Decision, Expire, Fail, Postpone, Retry
from fleet.telemetry.spans import Spans, carrier, fail
from workers.context import Context
from workers.job import Job
from workers.middleware import Call
from workers.registry import Handler, Result
from workers.tally import outcome


class Tracing:
    """A middleware; what a handler emits goes on with the handler's trace.

    It is to be the outermost, so that the time of the others counts.
    """

    def __init__(self, spans: Spans, service: str) -> None:
        self._spans = spans
        self._service = service

    def __call__(self, call: Call) -> Call:
        """Wrap the next call."""

        def traced(handler: Handler, context: Context, payload: Any) -> Result | Awaitable[Result]:
            span = self._begin(handler, context)
            try:
                with _inside(span):
                    result = call(handler, context, payload)
            except BaseException:
                self._end(context, span)
                raise
            if result is None or isinstance(result, Decision):
                self._end(context, span, result)
                return result
            return self._awaited(context, span, result)

        return traced

    def settled(self, job: Job) -> None:
        """End what `traced` began: the delivery is done with."""
        if job.context is not None and job.context.trace is not None:
            span, ended_ns = job.context.trace
            self._spans.settle(span, job.delivery.origin.queue, outcome(job.decision), ended_ns)

    async def _awaited(self, context: Context, span: Span, result: Awaitable[Result]) -> Result:
        decision: Result = None
        try:
            with _inside(span):
                decision = await result
        finally:
            self._end(context, span, decision)
        return decision

    def _begin(self, handler: Handler, context: Context) -> Span:
        event = context.event
        span = self._spans.process(
            context.queue,
            event.type,
            event.event_id,
            context.headers,
            {
                "messaging.consumer.group.name": self._service,
                "messaging.client.id": context.worker,
                "fleet.handler": handler.name,
                "fleet.attempt": context.attempt,
            },
            is_first=context.attempt == 1 and not context.is_replay,
        )
        context.carried = carrier(span)
        return span

    def _end(self, context: Context, span: Span, decision: Result = None) -> None:
        match decision:
            case Fail(failure=failure) | Retry(failure=failure):
                fail(span, failure.error_type, failure.message)
            case Ack(skipped=reason) | Expire(reason=reason) | Postpone(reason=reason) if reason:
                span.set_attribute("fleet.reason", reason)
            case _:
                pass
        span.end()
        context.trace = (span, time.time_ns())


def _inside(span: Span) -> Any:
    """The span as the current one; what is raised in it is written on it."""
    return use_span(span, end_on_exit=False, record_exception=True, set_status_on_exception=True)
