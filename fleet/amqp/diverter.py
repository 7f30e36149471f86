"""Takes deliveries off the wire before aiormq builds objects of them.

aiormq reads each frame in three awaits and hands it through two queues: of the time that an event
costs a worker, half goes there. Here the socket's bytes are cut into frames once; the frames of a
delivery go to the consumer of their channel, everything else goes on to aiormq unchanged. What
this saves is shown by `python -m bench consume --bare`.

Source of the layout: AMQP 0-9-1 specification, sections 2.3.5 and 4.2.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Iterable
from typing import Any, Final, Protocol, SupportsIndex
from weakref import WeakKeyDictionary

from aiormq.abc import AbstractConnection
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
KINDS: Final = frozenset({METHOD, HEADER, BODY, 8})
HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
HEARTBEAT_S: Final = 1.0

_OVERHEAD: Final = 8  # type, channel and length before the payload, the end mark behind it
_PAYLOAD: Final = 7
_head = struct.Struct(">BHI").unpack_from
_TAG: Final = struct.Struct(">Q")
_DELIVER: Final = b"\x00\x3c\x00\x3c"
_SIZE_AND_FLAGS: Final = struct.Struct(">QH")
_LENGTH: Final = struct.Struct(">I")
_CONTENT_TYPE, _ENCODING, _HEADERS = 1 << 15, 1 << 14, 1 << 13


class Sink(Protocol):
    """Where a channel's deliveries go. It must not raise and not wait."""

    def __call__(self, tag: int, body: bytes, table: bytes, *, redelivered: bool) -> None:
        """Take one delivery; `table` is its headers as they were on the wire."""
        ...


class _Channel:
    """The delivery that is coming in on one channel, piece by piece."""

    __slots__ = ("_body", "_missing", "_redelivered", "_table", "_tag", "sink")

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._tag = 0
        self._redelivered = False
        self._table = b""
        self._body = b""
        self._missing = 0

    def take(self, kind: int, octets: bytes, start: int, stop: int) -> bool:
        """Take a frame's payload; False where it is no part of a delivery."""
        if kind == METHOD:
            return self._method(octets, start)
        if not self._tag:
            return False
        if kind == HEADER:
            self._missing, flags = _SIZE_AND_FLAGS.unpack_from(octets, start + 4)
            self._table = _table(octets, start + 14, flags)
            self._body = b""
        else:
            piece = octets[start:stop]
            self._body = self._body + piece if self._body else piece
            self._missing -= len(piece)
        if not self._missing:
            tag, self._tag = self._tag, 0
            self.sink(tag, self._body, self._table, redelivered=self._redelivered)
        return True

    def _method(self, octets: bytes, start: int) -> bool:
        if octets[start : start + 4] != _DELIVER:
            return False
        at = start + 5 + octets[start + 4]  # behind the consumer tag
        (self._tag,) = _TAG.unpack_from(octets, at)
        self._redelivered = octets[at + 8] == 1
        return True


class Diverter(asyncio.StreamReader):
    """The reader that aiormq gets: all but the deliveries of the diverted channels."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._channels: dict[int, _Channel] = {}
        self._rest = b""
        self._is_amqp = True
        self._told = 0.0

    def divert(self, channel: int, sink: Sink) -> None:
        """Send the deliveries of `channel` to `sink` from now on."""
        self._channels[channel] = _Channel(sink)

    def restore(self, channel: int, sink: Sink) -> None:
        """Leave the deliveries of `channel` to aiormq, unless its number has a new owner."""
        found = self._channels.get(channel)
        if found is not None and found.sink == sink:
            del self._channels[channel]

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Cut what the socket gave into frames, and send each where it belongs."""
        octets = self._rest + bytes(data)
        if not self._is_amqp:
            super().feed_data(octets)
            return
        passed, at = self._cut(octets)
        self._rest = octets[at:]
        if passed:
            super().feed_data(b"".join(passed))
            return
        # aiormq counts the frames it sees as signs of life; a busy broker sends no heartbeats.
        now = time.monotonic()
        if at and now - self._told > HEARTBEAT_S:
            self._told = now
            super().feed_data(HEARTBEAT)

    def _cut(self, octets: bytes) -> tuple[list[bytes], int]:
        """The frames that are not diverted, and where the first unfinished one begins."""
        channels = self._channels
        passed: list[bytes] = []
        at, size = 0, len(octets)
        while size - at >= _OVERHEAD:
            kind, number, length = _head(octets, at)
            if kind not in KINDS:
                self._is_amqp = False  # no broker: let aiormq say so
                return [*passed, octets[at:]], size
            end = at + _OVERHEAD + length
            if end > size:
                break
            channel = channels.get(number)
            if channel is None or not channel.take(kind, octets, at + _PAYLOAD, end - 1):
                passed.append(octets[at:end])
            at = end
        return passed, at


class DivertingTransport(TransportFactory):
    """Opens the socket as aiormq does, with a Diverter for its reader."""

    def __init__(self) -> None:
        self.reader: Diverter | None = None

    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect. Raises AMQPConnectionError where that fails."""
        provider = kwargs.pop("ssl_context_provider")
        tls = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        self.reader = reader = Diverter(loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, url.host or "", url.port or 0, ssl=tls, **kwargs
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


Diverters = WeakKeyDictionary[AbstractConnection, Diverter]
"""The diverter of each living connection."""


def _table(octets: bytes, at: int, flags: int) -> bytes:
    """The headers among a message's properties, with their length before them."""
    for flag in (_CONTENT_TYPE, _ENCODING):
        if flags & flag:
            at += 1 + octets[at]
    if not flags & _HEADERS:
        return b""
    (length,) = _LENGTH.unpack_from(octets, at)
    return octets[at : at + 4 + length]
