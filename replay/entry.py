"""What a parked message says of itself: who it is, why it stands there, where its home is. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec

from fleet.core import envelope
from fleet.core.failure import Failure, failure
from fleet.core.ulid import is_ulid
from topology import names

By: TypeAlias = Literal["worker", "broker", "unrouted"]
"""Who put it there."""

UNROUTED_EXCHANGE: Final = "x-unrouted-exchange"
UNROUTED_KEY: Final = "x-unrouted-key"
"""Where a message of `pf.unrouted` was published, once it came there from the archive."""

_BUCKET = re.compile(r"\.retry\.\d\d\Z").search
_DEATHS: Final[Mapping[str, tuple[str, str, str]]] = {
    "expired": ("resource", "ExpiredInQueue", "nobody took it in time"),
    "delivery_limit": ("resource", "DeliveryLimit", "it came back too often; it may kill workers"),
    "maxlen": ("resource", "QueueFull", "the queue was full and dropped its oldest"),
    "rejected": ("data", "LeftToTheBroker", "the worker could not publish it with its reason"),
}


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One parked message, without its body.

    `id` is the event's, or `body-` and 16 digits of the body's digest where it has none; with
    `digest` (SHA-256 of the body) and `replays` it names exactly one state of one message.
    """

    id: str
    digest: str
    replays: int
    type: str
    by: By
    home: str
    """The queue it failed in; "" where nothing says so."""
    exchange: str
    handler: str
    error_class: str
    error_type: str
    error: str
    fingerprint: str
    attempts: int
    first_ms: int
    last_ms: int
    size: int


class _Named(msgspec.Struct, rename="camel"):
    event_id: Any = ""
    type: Any = ""


_named = msgspec.json.Decoder(_Named).decode


def read_entry(
    headers: Mapping[str, Any], body: bytes, *, exchange: str = "", key: str = ""
) -> Entry:
    """The entry of a message; whatever its headers and body hold, there is one."""
    digest = hashlib.sha256(body).hexdigest()
    event_id, event_type = _names(headers, body)
    exchange = _text(headers, UNROUTED_EXCHANGE) or exchange
    key = _text(headers, UNROUTED_KEY) or key
    unrouted = exchange not in ("", names.DLX)
    headers = headers if unrouted else told(headers)
    now = _ms(headers.get(envelope.LAST_FAILED_AT))
    return Entry(
        id=event_id or f"body-{digest[:16]}",
        digest=digest,
        replays=envelope.read_headers(headers).replay_count,
        type=event_type or (key if unrouted else ""),
        by="unrouted" if unrouted else "broker" if death(headers) else "worker",
        home=key if unrouted else _text(headers, envelope.FAILED_QUEUE),
        exchange=exchange,
        handler=_text(headers, envelope.HANDLER),
        error_class=_text(headers, envelope.ERROR_CLASS) or ("data" if unrouted else ""),
        error_type=_text(headers, envelope.ERROR_TYPE) or ("Unrouted" if unrouted else ""),
        error=_text(headers, envelope.ERROR_MESSAGE)
        or (f"nobody wanted {key!r} of {exchange}" if unrouted else ""),
        fingerprint=_text(headers, envelope.ERROR_FINGERPRINT)
        or (failure("data", "Unrouted", "").fingerprint if unrouted else ""),
        attempts=envelope.read_headers(headers).attempt - 1,
        first_ms=_ms(headers.get(envelope.FIRST_FAILED_AT)) or now,
        last_ms=now,
        size=len(body),
    )


def told(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """The headers, with what the broker knows put into our words where the broker parked it.

    A republished message loses the broker's own headers, so whoever sends one on sends these.
    """
    found = death(headers)
    if found is None:
        return headers
    at = found.get("time")
    at_ms = int(at.timestamp() * 1000) if isinstance(at, datetime) else 0
    return {
        **headers,
        **envelope.failure_headers(
            headers,
            _failure(found),
            attempt=envelope.read_headers(headers).attempt,
            now_ms=at_ms,
            queue=str(found.get("queue", "")),
            worker="broker",
            handler=_text(headers, envelope.HANDLER),
        ),
    }


def death(headers: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The `x-death` entry of the queue it was to be handled from; None where there is none.

    A retried message's first entry is its bucket: that is a delay and no death.
    """
    deaths = headers.get("x-death")
    if not isinstance(deaths, Sequence) or isinstance(deaths, str | bytes):
        return None
    for each in deaths:
        if isinstance(each, Mapping) and not _BUCKET(str(each.get("queue", ""))):
            return each
    return None


def iso(at_ms: int) -> str:
    """A time as a person reads it; "" for none."""
    if not at_ms:
        return ""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")


def _failure(found: Mapping[str, Any]) -> Failure:
    reason, queue = str(found.get("reason", "")), str(found.get("queue", ""))
    error_class, kind, text = _DEATHS.get(reason, ("resource", "DeadLettered", reason))
    return failure(error_class, kind, f"{text} ({queue})")


def _names(headers: Mapping[str, Any], body: bytes) -> tuple[str, str]:
    """Event id and type by the headers, else by the body."""
    event_id = _text(headers, envelope.EVENT_ID)
    event_type = _text(headers, envelope.EVENT_TYPE)
    if not (is_ulid(event_id) and event_type):
        try:
            read = _named(body)
        except (msgspec.MsgspecError, ValueError, RecursionError, ArithmeticError):
            read = _Named()
        event_id = event_id if is_ulid(event_id) else str(read.event_id)
        event_type = event_type or str(read.type)[:100]
    return event_id if is_ulid(event_id) else "", event_type


def _text(headers: Mapping[str, Any], name: str) -> str:
    value = headers.get(name)
    return value if isinstance(value, str) else ""


def _ms(value: Any) -> int:
    try:
        return int(datetime.fromisoformat(value).timestamp() * 1000)
    except (TypeError, ValueError, OverflowError, OSError):
        return 0
