"""Tracing is off without an endpoint, and then nobody pays for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fleet.core.errors import SettingsError
from fleet.settings import load
from fleet.telemetry.settings import TracingSettings
from fleet.telemetry.tracing import open_spans


def test_without_an_endpoint_nothing_is_traced(monkeypatch: pytest.MonkeyPatch):
    """Unset or empty: no spans."""
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert open_spans(load(TracingSettings), "worker", "w") is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    assert open_spans(load(TracingSettings), "worker", "w") is None


def test_missing_libraries_are_one_sentence(monkeypatch: pytest.MonkeyPatch):
    """An endpoint without the extra says what to install."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"flea-fleet\[otel\]"):
        open_spans(load(TracingSettings), "worker", "w")


def test_a_process_that_does_not_trace_does_not_load_the_libraries():
    """Neither worker nor bridge imports them."""
    code = (
        "import sys, fleet.cli.worker, fleet.cli.publisher;"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_endpoint_that_is_away_holds_nobody_up(monkeypatch: pytest.MonkeyPatch):
    """Spans are begun, ended and dropped; closing returns."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    spans = open_spans(load(TracingSettings), "worker", "w")
    assert spans is not None
    spans.publish("pf.ingest", "job.completed", "01J", 3).end()
    spans.close()
