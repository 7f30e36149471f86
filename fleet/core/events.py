"""Events: read strictly, written exactly.

Wire format: `{"eventId": ULID, "type": "domain.name", "agentId": text, "payload": {…}, "ts": ms}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from fleet.core import ulid
from fleet.core.errors import EnvelopeError
from fleet.core.payloads import KNOWN

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 32
MAX_TYPE: Final = 100
EARLIEST_MS: Final = 1_577_836_800_000
"""2020-01-01: nothing on the platform is older."""
MAX_AHEAD_MS: Final = 300_000
"""How far a sender's clock may run ahead of ours."""

TYPE_PATTERN: Final = r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*\Z"
_AGENT_PATTERN: Final = r"^[A-Za-z0-9_.\-]+\Z"


class Event(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """What happened; immutable.

    `event_id` is a ULID, `type` is `domain.name`, `ts` is milliseconds since 1970. `payload`
    keeps unknown fields; its fractions are Decimal.
    """

    event_id: Annotated[str, Meta(pattern=ulid.PATTERN)]
    type: Annotated[str, Meta(pattern=TYPE_PATTERN, max_length=MAX_TYPE)]
    agent_id: Annotated[str, Meta(pattern=_AGENT_PATTERN, max_length=128)]
    payload: dict[str, Any]
    ts: Annotated[int, Meta(ge=EARLIEST_MS)]


_decode = msgspec.json.Decoder(Event, float_hook=Decimal).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode
_keys_written = re.compile(rb'"\s*:').findall
_ENVELOPE_FIELDS: Final = len(Event.__struct_fields__)
_FLAT_OBJECTS: Final = 2
_NO_UNICODE: Final = "text is not valid Unicode"


def read_event(
    raw: bytes | str, now_ms: int, *, payload: bool = True, most: int = MAX_BYTES
) -> Event:
    """The event in `raw`, checked in every field; without `payload`, its payload's fields are not.

    More than `most` bytes, at most 1 MiB, are not looked into.
    Raises EnvelopeError, with a reason fit for a header, where `raw` is too large or too deep, no
    UTF-8, no JSON, has a key twice, lacks a field or has one of the wrong form, is dated before
    2020 or over five minutes after `now_ms`, or is of a known type with a payload that is not.
    """
    body = _bytes(raw, min(most, MAX_BYTES))
    try:
        event = _decode(body)
        _check_keys(body, event.payload)
        known = KNOWN.get(event.type) if payload else None
        if known is not None:
            msgspec.convert(event.payload, known)
    except (msgspec.MsgspecError, ValueError, RecursionError, ArithmeticError) as error:
        raise EnvelopeError(_reason(error)) from None
    if event.ts > now_ms + MAX_AHEAD_MS:
        raise EnvelopeError("ts lies in the future")
    return event


def write_event(event: Event) -> bytes:
    """The event as JSON; Decimals become numbers, digit for digit.

    Raises EnvelopeError where nobody could read it again: a handler's mistake is found where it
    is made, not by every service that the event reaches.
    """
    try:
        body = _encode(event)
    except (TypeError, ValueError, RecursionError) as error:
        raise EnvelopeError(_reason(error)) from None
    read_event(body, event.ts, payload=False)
    return body


def _bytes(raw: bytes | str, most: int) -> bytes:
    try:
        body = raw.encode() if isinstance(raw, str) else raw
    except UnicodeEncodeError:
        raise EnvelopeError(_NO_UNICODE) from None
    if len(body) > most:
        raise EnvelopeError(f"{len(body)} bytes are more than the {most} allowed")
    return body


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return _NO_UNICODE
    if isinstance(error, RecursionError):
        return f"nested deeper than {MAX_DEPTH} levels"
    if isinstance(error, ArithmeticError):
        return "a number is beyond all bounds"
    return str(error)[:200]


def _check_keys(body: bytes, payload: dict[str, Any]) -> None:
    """Refuse a key that stands twice: which of two sizes was meant is not ours to guess.

    Each key in JSON text is a quote, white space and a colon, so no fewer of those than keys can
    be written: an equal count proves that no key was dropped. Only where the counts differ (a
    string holds such a mark, or a key is unknown) is the text parsed once more.
    """
    flat = b"[" not in body and body.count(b"{") == _FLAT_OBJECTS
    keys = len(payload) if flat else _count_keys(payload)
    if len(_keys_written(body)) != _ENVELOPE_FIELDS + keys:
        json.loads(body, object_pairs_hook=_unique, parse_float=str, parse_int=str)


def _count_keys(payload: dict[str, Any]) -> int:
    """Count the keys of a tree; raises ValueError where it is deeper than MAX_DEPTH."""
    total, level, depth = 0, [payload], 1
    while level:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        total += sum(len(node) for node in level if type(node) is dict)
        level = [child for node in level for child in _children(node)]
        depth += 1
    return total


def _children(node: Any) -> Iterable[Any]:
    inner = node.values() if type(node) is dict else node
    return (child for child in inner if type(child) in (dict, list))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return mapping
