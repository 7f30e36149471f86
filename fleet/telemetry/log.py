"""Log lines: to stderr, one event each, without secrets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Final, Protocol

import structlog

from fleet.core.redact import redact
from fleet.telemetry.settings import LogSettings


class Bound(Protocol):
    """What log lines are about."""

    def log_words(self) -> Mapping[str, Any]:
        """What a line says of it."""
        ...


about: Final[ContextVar[Bound | None]] = ContextVar("about", default=None)
"""What is in hand. Its words are asked for when a line is written: to set it costs next to nothing,
to bind them for each event would cost more than the event."""


def configure(*, json: bool | None = None, level: str = "info") -> None:
    """Write log lines from `level` up to stderr, as JSON objects where `json` is set.

    None: JSON where stderr is no terminal. Warnings of libraries, which log in Python's own way,
    come out as lines of the same form, so without secrets too.
    """
    if json is None:
        json = not sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            say_about,
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
    root = logging.getLogger()
    root.handlers = [each for each in root.handlers if not isinstance(each, _Libraries)]
    root.addHandler(_Libraries(logging.WARNING))


def configure_from(settings: LogSettings, *, json: bool = False) -> None:
    """The same as the environment says; `json` is an option that goes before it."""
    by_format = {"auto": None, "console": False, "json": True}[settings.log_format]
    configure(json=json or by_format, level=settings.log_level)


class _Libraries(logging.Handler):
    """Takes what libraries log; of the AMQP client nothing, for which our own lines stand."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write it as a line of ours. Raises nothing, as no handler may."""
        if record.name.partition(".")[0] == "aiormq":
            return
        try:
            log = structlog.get_logger()
            log.log(record.levelno, record.getMessage(), by=record.name, exc_info=record.exc_info)
        except Exception:  # noqa: BLE001 - a line that cannot be written must not end what is done
            self.handleError(record)


def say_about(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Add what the line is about, where the line does not say so itself."""
    bound = about.get()
    if bound is not None:
        for name, value in bound.log_words().items():
            event.setdefault(name, value)
    return event


def mask(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take secrets out of every text of a log line."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redact(value)
    return event
