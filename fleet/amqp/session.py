"""What one connection has of a publisher: its channels, its writer, its clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog
from aiormq.abc import AbstractConnection, ChannelFrame

from fleet.amqp.confirms import ConfirmChannel
from fleet.amqp.connection import Link

SWEEP_S: Final = 0.25
"""How often it is looked for messages whose time for an answer is over."""

log = structlog.get_logger("fleet.amqp")


class Session:
    """The channels of one connection, and the one writer that feeds them all.

    What is posted while a write is under way goes out together with the next one. `written` is
    called after each.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        channels: list[ConfirmChannel],
        written: Callable[[], None],
    ) -> None:
        self.channels = channels
        self._connection = connection
        self._written = written
        self._outbox: list[bytes] = []
        self._bytes = 0
        self._wake = asyncio.Event()

    def has_room(self, count: int, size: int) -> bool:
        """Whether what is not written yet is below these bounds, answered or given up meanwhile."""
        return len(self._outbox) < count and self._bytes < size

    def write(self, octets: bytes) -> None:
        """Hand over a message's bytes, to be written soon and in this order."""
        self._outbox.append(octets)
        self._bytes += len(octets)
        self._wake.set()

    async def run(self, link: Link) -> None:
        """Write and watch until a channel or the connection ends; raises a channel's error."""
        work = [
            asyncio.ensure_future(each)
            for each in (self._send(), self._sweep(link), link.lost(self._connection))
        ]
        ends = [channel.closing for channel in self.channels]
        try:
            done, _ = await asyncio.wait([*work, *ends], return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in (*work, *ends):
                each.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._connection.ready()  # not while the broker's alarm is on
            octets, self._outbox, self._bytes = b"".join(self._outbox), [], 0
            drained = self._connection.create_future()
            await self._connection.write_queue.put(
                ChannelFrame(payload=octets, should_close=False, drain_future=drained)
            )
            await drained
            self._written()

    async def _sweep(self, link: Link) -> None:
        blocked = False
        while True:
            await asyncio.sleep(SWEEP_S)
            now = time.monotonic()
            for channel in self.channels:
                channel.expire(now)
            if blocked is not link.blocked:
                blocked = not blocked
                log.warning("broker alarm, memory or disk", link=link.name, publishing=not blocked)
