"""A trace begins where an event enters, and travels in its headers."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from fleet.amqp.log import Logged, open_log
from fleet.telemetry.spans import Spans
from publisher.tracing import Tracing
from topology import names


async def test_each_event_carries_the_span_of_its_publish(world: Any, witness: Any, feed_over: Any):
    """One span for each event, ended once; its ids are those in the message's traceparent."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    await world.lay_out()
    async with world.platform(events=50) as platform:
        async with world.bridge(traces=Tracing(Spans(provider))):
            await feed_over(platform)
            await world.until_saved(witness(platform)[-1])
        emitted = set(witness(platform))
    carried: dict[str, str] = {}

    def note(message: Logged) -> None:
        carried[message.headers["x-event-id"]] = message.headers["traceparent"]

    async with open_log(world.amqp_url, names.LOG) as log:
        await log.catch_up(note)
    spans = {
        str((s.attributes or {})["messaging.message.id"]): s for s in memory.get_finished_spans()
    }
    assert set(spans) == set(carried) == emitted
    assert len(memory.get_finished_spans()) == len(emitted)
    for event_id, span in spans.items():
        ids = f"{span.context.trace_id:032x}-{span.context.span_id:016x}"
        assert carried[event_id].startswith(f"00-{ids}-")
        assert span.kind is SpanKind.PRODUCER
        assert span.name == "publish pf.ingest"
