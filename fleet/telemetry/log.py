"""Log lines: to stderr, one event each, without secrets."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from fleet.core.redact import redact


def configure(*, json: bool = False, level: str = "info") -> None:
    """Write log lines from `level` up to stderr; as JSON objects where `json` is set."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            mask,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def mask(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take secrets out of every text of a log line."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redact(value)
    return event
