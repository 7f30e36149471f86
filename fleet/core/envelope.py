"""The headers that travel with an event: how often it was tried, and what went wrong.

A person reads them in the management UI, so they are words and ISO times, never structures.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from fleet.core.events import Event
from fleet.core.failure import Failure

EVENT_ID: Final = "x-event-id"
EVENT_TYPE: Final = "x-event-type"
PARENT_ID: Final = "x-parent-id"
RETRY_COUNT: Final = "x-retry-count"
REPLAY_COUNT: Final = "x-replay-count"
ALLOW_STALE: Final = "x-allow-stale"
FIRST_FAILED_AT: Final = "x-first-failed-at"
LAST_FAILED_AT: Final = "x-last-failed-at"
ERROR_CLASS: Final = "x-error-class"
ERROR_TYPE: Final = "x-error-type"
ERROR_MESSAGE: Final = "x-error-message"
ERROR_FINGERPRINT: Final = "x-error-fingerprint"
ERROR_HISTORY: Final = "x-error-history"
FAILED_QUEUE: Final = "x-failed-queue"
WORKER: Final = "x-worker"
HANDLER: Final = "x-handler"

MAX_HISTORY: Final = 10
MAX_COUNT: Final = 1_000_000


class Headers(msgspec.Struct, frozen=True, gc=False):
    """What the headers of a delivery say; `attempt` counts from 1."""

    attempt: int = 1
    replay_count: int = 0
    allow_stale: bool = False


FRESH: Final = Headers()


def read_headers(raw: Mapping[str, Any]) -> Headers:
    """The counts in `raw`; whatever is no sane count reads as none."""
    if RETRY_COUNT not in raw and REPLAY_COUNT not in raw and ALLOW_STALE not in raw:
        return FRESH
    return Headers(
        attempt=_count(raw.get(RETRY_COUNT)) + 1,
        replay_count=_count(raw.get(REPLAY_COUNT)),
        allow_stale=raw.get(ALLOW_STALE) is True,
    )


def event_headers(event: Event) -> dict[str, Any]:
    """The headers every published event carries."""
    return {EVENT_ID: event.event_id, EVENT_TYPE: event.type}


def failure_headers(
    raw: Mapping[str, Any],
    failure: Failure,
    *,
    attempt: int,
    now_ms: int,
    queue: str,
    worker: str,
    handler: str,
) -> dict[str, Any]:
    """The headers of a message that failed in `attempt`: the old ones, and why.

    With them it can be retried, parked, understood and sent home again.
    """
    now = _iso(now_ms)
    first = raw.get(FIRST_FAILED_AT)
    line = f"{now} attempt {attempt} {failure.error_class} {failure.error_type}: {failure.message}"
    return {
        **raw,
        RETRY_COUNT: attempt,
        FIRST_FAILED_AT: first if isinstance(first, str) else now,
        LAST_FAILED_AT: now,
        ERROR_CLASS: failure.error_class,
        ERROR_TYPE: failure.error_type,
        ERROR_MESSAGE: failure.message,
        ERROR_FINGERPRINT: failure.fingerprint,
        ERROR_HISTORY: [*_history(raw.get(ERROR_HISTORY)), line[:300]],
        FAILED_QUEUE: queue,
        WORKER: worker,
        HANDLER: handler,
    }


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        return 0
    return value


def _history(value: Any) -> list[str]:
    if not isinstance(value, list):
        return []
    return [line[:300] for line in value if isinstance(line, str)][-(MAX_HISTORY - 1) :]


def _iso(now_ms: int) -> str:
    return datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds")
