"""A message as the bytes that go over the wire.

aiormq and pamqp build several objects for each message; at ten thousand a second that is where
the time goes. What repeats (the method frame of an exchange and key, names of headers, small
numbers) is built once here, and the rest is packed by hand.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import pamqp.frame
from pamqp import commands, encode

from fleet.core.errors import DataError

MAX_BODY: Final = 1 << 20
ANY_BODY: Final = 1 << 30
"""For who passes on what the broker had already: it takes 16 MiB, before 4.0 128."""
SHORT: Final = 255  # bytes in a routing key, a type or a message id

BROKER_HEADERS: Final = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count")
BROKER_COUNTERS: Final = ("x-acquired-count", "x-stream-")
_COPIES: Final = frozenset({"CC", "BCC"})
"""Republished, they would send a copy to each queue they name, every time."""
_STRIPPED: Final = (*BROKER_HEADERS, *BROKER_COUNTERS)

_FRAME_OVERHEAD: Final = 8  # type, channel, length and the end mark
_END: Final = b"\xce"
_BODY: Final = struct.Struct(">BHI")
_HEADER: Final = struct.Struct(">BHIHHQH")
_HEADER_FIXED: Final = 14  # class, weight, body size and flags
_CONTENT_TYPE: Final = b"\x10application/json"
_PERSISTENT: Final = b"\x02"
_long, _timestamp = struct.Struct(">I").pack, struct.Struct(">Q").pack

# Property flags, in the order in which the properties follow.
_FLAGS: Final = 1 << 15 | 1 << 13 | 1 << 12 | 1 << 7 | 1 << 6 | 1 << 5
_EXPIRATION_FLAG: Final = 1 << 8


def message(
    channel: int,
    frame_max: int,
    *,
    exchange: str,
    routing_key: str,
    body: bytes,
    headers: Mapping[str, Any],
    message_id: str,
    now_s: int,
    expiration_ms: int | None = None,
) -> bytes:
    """The frames of one persistent, mandatory JSON message.

    Headers that the broker itself sets are left out: a copied `x-death` makes 3.x take a
    republished message for a dead-letter cycle and drop it. Raises DataError where something
    does not fit: a key over 255 bytes, a header of a kind that AMQP has not, too many of them.
    """
    try:
        properties = b"".join(
            (
                _CONTENT_TYPE,
                table(headers),
                _PERSISTENT,
                b"" if expiration_ms is None else _short(str(expiration_ms)),
                _short(message_id),
                _timestamp(now_s),
                _type(headers.get("x-event-type")),
            )
        )
        method = _method(channel, exchange, routing_key)
    except (TypeError, ValueError, struct.error) as error:
        raise DataError(f"the message cannot be written: {error}") from None
    size = _HEADER_FIXED + len(properties)
    if frame_max and size + _FRAME_OVERHEAD > frame_max:
        raise DataError(f"headers of {size} bytes are more than a frame of {frame_max} holds")
    flags = _FLAGS if expiration_ms is None else _FLAGS | _EXPIRATION_FLAG
    head = _HEADER.pack(2, channel, size, 60, 0, len(body), flags)
    return b"".join((method, head, properties, _END, *_bodies(channel, frame_max, body)))


def table(headers: Mapping[str, Any]) -> bytes:
    """The headers as an AMQP table, without those that the broker sets."""
    content = b"".join(
        [mark + _value(value) for name, value in headers.items() if (mark := _name(name))]
    )
    return _long(len(content)) + content


def _bodies(channel: int, frame_max: int, body: bytes) -> Iterator[bytes]:
    limit = frame_max - _FRAME_OVERHEAD if frame_max else MAX_BODY
    for start in range(0, len(body), limit):
        piece = body[start : start + limit]
        yield _BODY.pack(3, channel, len(piece))
        yield piece
        yield _END


@lru_cache(maxsize=1024)
def _method(channel: int, exchange: str, routing_key: str) -> bytes:
    publish = commands.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True)
    return pamqp.frame.marshal(publish, channel)


@lru_cache(maxsize=1024)
def _name(name: str) -> bytes:
    return b"" if name.startswith(_STRIPPED) or name in _COPIES else _short(name)


def _value(value: Any) -> bytes:
    if type(value) is str:
        text = value.encode()
        return b"S" + _long(len(text)) + text
    return _number(value) if type(value) is int else encode.encode_table_value(value)


@lru_cache(maxsize=1024)
def _number(value: int) -> bytes:
    return encode.table_integer(value)


def _short(text: str) -> bytes:
    octets = text.encode()
    if len(octets) > SHORT:
        raise ValueError(f"{len(octets)} bytes are more than the {SHORT} of a short text")
    return bytes((len(octets),)) + octets


@lru_cache(maxsize=1024)
def _type(value: Any) -> bytes:
    known = isinstance(value, str) and len(value.encode()) <= SHORT
    return _short(value) if known else _short("")
