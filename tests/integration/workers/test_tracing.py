"""A trace goes through handlers and what they emit; retries and replays link to it."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from fleet.core.errors import NetworkError
from fleet.core.retry import RetryPolicy
from fleet.telemetry.spans import Spans, carrier
from topology import names
from workers.context import Context
from workers.middleware.tracing import Tracing
from workers.registry import Service


class Seen:
    """The spans that ended."""

    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.spans = Spans(provider)

    def of(self, name: str, event_id: str = "") -> list[ReadableSpan]:
        """The spans of this name, of one message where it is given, in order of their beginning."""
        found = [
            span
            for span in self._memory.get_finished_spans()
            if span.name == name
            and (not event_id or (span.attributes or {}).get("messaging.message.id") == event_id)
        ]
        return sorted(found, key=lambda span: span.start_time or 0)


@pytest.fixture
def seen() -> Seen:
    """Spans in memory."""
    return Seen()


async def test_a_trace_goes_on_through_what_a_handler_emits(
    bench: Any, service: Service, seen: Seen
):
    """Publish, process, settle, and the same for the emitted event: one trace, parent by parent."""

    @service.handler("job.completed")
    async def first(context: Context, _payload: dict[str, Any]) -> None:
        context.emit("job.paid", {}, "k")

    @service.handler("job.paid")
    def second(_context: Context, _payload: dict[str, Any]) -> None: ...

    await bench.lay_out(service)
    tracing = Tracing(seen.spans, service.name)
    worker = await bench.start(service, middlewares=[tracing], settled=tracing.settled)
    event = bench.event("job.completed")
    published = seen.spans.publish(names.INGEST, event.type, event.event_id, 10)
    published.end()
    await bench.publish(event, headers=carrier(published))
    await bench.until(lambda: worker.handled == 2)

    queue = names.work_queue(service.name)
    outer, inner = seen.of(f"process {queue}")
    assert [span.kind for span in (outer, inner)] == [SpanKind.CONSUMER] * 2
    assert outer.parent is not None
    assert outer.parent.span_id == published.get_span_context().span_id
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id
    assert outer.attributes is not None
    assert outer.attributes["messaging.system"] == "rabbitmq"
    assert outer.attributes["messaging.destination.name"] == queue
    assert outer.attributes["messaging.message.id"] == event.event_id
    assert outer.attributes["messaging.consumer.group.name"] == service.name
    assert not outer.links
    settled = seen.of(f"settle {queue}")
    assert [span.parent.span_id for span in settled if span.parent] == [
        outer.context.span_id,
        inner.context.span_id,
    ]
    traces = {span.context.trace_id for span in (outer, inner, *settled)}
    assert traces == {published.get_span_context().trace_id}


async def test_a_retry_links_to_the_trace_it_comes_from(bench: Any, service: Service, seen: Seen):
    """The first attempt goes on with the publisher's trace; the next has its own, with a link."""

    @service.handler("job.completed", retry=RetryPolicy(attempts=2, base=0.01, cap=0.05))
    async def handle(context: Context, _payload: dict[str, Any]) -> None:
        if context.attempt == 1:
            raise NetworkError("away for a moment")

    await bench.lay_out(service)
    tracing = Tracing(seen.spans, service.name)
    worker = await bench.start(service, middlewares=[tracing], settled=tracing.settled)
    event = bench.event("job.completed")
    published = seen.spans.publish(names.INGEST, event.type, event.event_id, 10)
    await bench.publish(event, headers=carrier(published))
    await bench.until(lambda: worker.handled == 2)

    origin = published.get_span_context()
    first, second = seen.of(f"process {names.work_queue(service.name)}", event.event_id)
    assert first.context.trace_id == origin.trace_id
    assert first.status.status_code is StatusCode.ERROR
    assert [each.name for each in first.events] == ["exception"]
    assert second.parent is None
    assert second.context.trace_id != origin.trace_id
    assert [link.context.span_id for link in second.links] == [origin.span_id]
    assert second.attributes is not None
    assert second.attributes["fleet.attempt"] == 2
    outcomes = [
        (span.attributes or {})["fleet.outcome"]
        for span in seen.of(f"settle {names.work_queue(service.name)}")
    ]
    assert outcomes == ["retried", "done"]


async def test_strange_headers_trace_nothing(bench: Any, service: Service, seen: Seen):
    """What is no traceparent is no parent: the handler runs, in a trace of its own."""

    @service.handler("job.completed")
    async def handle(_context: Context, _payload: dict[str, Any]) -> None: ...

    await bench.lay_out(service)
    tracing = Tracing(seen.spans, service.name)
    worker = await bench.start(service, middlewares=[tracing], settled=tracing.settled)
    for strange in ("00-zz-zz-01", 7, "", "x" * 10_000):
        await bench.publish(bench.event("job.completed"), headers={"traceparent": strange})
    await bench.until(lambda: worker.handled == 4)
    spans = seen.of(f"process {names.work_queue(service.name)}")
    assert [(span.parent, span.links) for span in spans] == [(None, ())] * 4
