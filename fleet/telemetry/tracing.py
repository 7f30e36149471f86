"""Whether traces are sent, and where: by OpenTelemetry's own variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.core.errors import SettingsError
from fleet.telemetry.settings import TracingSettings

if TYPE_CHECKING:
    from fleet.telemetry.spans import Spans


def open_spans(settings: TracingSettings, part: str, name: str) -> Spans | None:
    """The spans of a process, sent to the OTLP endpoint; None where there is no endpoint.

    Blocks nobody: they are sent by a thread, and dropped where the endpoint is away. The SDK reads
    the rest of its variables by itself (headers, sampler, timeouts). Raises SettingsError where the
    libraries are missing.
    """
    if not (settings.endpoint or settings.traces_endpoint):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - an extra
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - an extra

        from fleet.telemetry.spans import Spans  # noqa: PLC0415 - needs the extra
    except ImportError:
        raise SettingsError(
            "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, whose libraries are not installed;"
            " install flea-fleet[otel] or unset it."
        ) from None
    about = {"service.name": f"flea-fleet-{part}", "service.instance.id": name}
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Spans(provider)
