"""The spans of a message's way, by OpenTelemetry's semantic conventions for messaging.

Only imported where tracing is on: the libraries come with the extra `flea-fleet[otel]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace import get_current_span as span_of
from opentelemetry.trace import set_span_in_context as containing
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_SYSTEM: Final = {"messaging.system": "rabbitmq"}


class Spans:
    """Begins spans: publish where an event enters, process around a handler, settle after it."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("flea-fleet", version("flea-fleet"))

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def publish(self, exchange: str, event_type: str, event_id: str, size: int) -> Span:
        """A message on its way to the broker, until that has answered."""
        return self._tracer.start_span(
            f"publish {exchange}",
            kind=SpanKind.PRODUCER,
            attributes={
                **_named("publish", "send", exchange, event_type, event_id),
                "messaging.message.body.size": size,
            },
        )

    def process(
        self,
        queue: str,
        event_type: str,
        event_id: str,
        headers: Mapping[str, Any],
        attributes: Mapping[str, str | int],
        *,
        is_first: bool,
    ) -> Span:
        """A message in the hands of a handler.

        The first time it goes on with the publisher's trace. A retry or a replay, hours later
        perhaps, begins a trace of its own that links to it.
        """
        # What is no text was not written by us.
        text = {name: value for name, value in headers.items() if isinstance(value, str)}
        origin = _PROPAGATOR.extract(text)
        known = span_of(origin).get_span_context()
        links = [Link(known)] if known.is_valid and not is_first else []
        return self._tracer.start_span(
            f"process {queue}",
            context=origin if is_first else None,
            kind=SpanKind.CONSUMER,
            links=links,
            attributes={
                **_named("process", "process", queue, event_type, event_id),
                **attributes,
            },
        )

    def settle(self, parent: Span, queue: str, outcome: str, began_ns: int) -> None:
        """What followed on a handler's end: messages confirmed, rows committed, the ack sent."""
        span = self._tracer.start_span(
            f"settle {queue}",
            context=containing(parent),
            kind=SpanKind.CLIENT,
            start_time=began_ns,
            attributes={
                **_SYSTEM,
                "messaging.operation.name": "settle",
                "messaging.operation.type": "settle",
                "messaging.destination.name": queue,
                "fleet.outcome": outcome,
            },
        )
        span.end()


def carrier(span: Span) -> dict[str, str]:
    """The headers by which whoever gets the message finds the span."""
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers, containing(span))
    return headers


def fail(span: Span, kind: str, message: str = "") -> None:
    """Say on the span what went wrong."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, message or None))


def _named(
    name: str, operation: str, destination: str, event_type: str, event_id: str
) -> dict[str, str]:
    return {
        **_SYSTEM,
        "messaging.operation.name": name,
        "messaging.operation.type": operation,
        "messaging.destination.name": destination,
        "messaging.rabbitmq.destination.routing_key": event_type,
        "messaging.message.id": event_id,
    }
