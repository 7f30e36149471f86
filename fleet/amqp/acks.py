"""Acks of one channel, joined where the order of finishing allows it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol

from aiormq.abc import AbstractChannel

from fleet.amqp.losses import LOSSES, reraise_own_cancellation


class Wire(Protocol):
    """The channel that settlements go to, as aiormq has it."""

    def basic_ack(
        self, delivery_tag: int, *, multiple: bool = ..., wait: bool = ...
    ) -> Awaitable[None]:
        """Send basic.ack; without `wait`, return once it is queued."""
        ...

    def basic_nack(
        self, delivery_tag: int, *, requeue: bool = ..., wait: bool = ...
    ) -> Awaitable[None]:
        """Send basic.nack; without `wait`, return once it is queued."""
        ...


class AckLine:
    """Collects the settlements of one channel's deliveries, whose tags count from 1.

    `flush` sends one ack for the contiguous finished prefix, and a single one for each delivery
    that finished behind a slower one, so that a slow delivery holds nobody up.
    """

    __slots__ = ("_beyond", "_end", "_finished", "_flushes", "_returned", "_wire", "is_open")

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._finished: list[int] = []
        self._returned: list[tuple[int, bool]] = []
        self._end = 0
        self._beyond: set[int] = set()
        self._flushes: set[asyncio.Timeout] = set()
        self.is_open = True

    def ack(self, tag: int) -> None:
        """Note that `tag` is done; sent at the next flush."""
        self._finished.append(tag)

    def nack(self, tag: int, *, requeue: bool = True) -> None:
        """Note that `tag` goes back to the queue, or to its dead-letter exchange."""
        self._returned.append((tag, requeue))

    @property
    def settled(self) -> int:
        """How many deliveries were settled."""
        return self._end + len(self._beyond)

    def holds(self, count: int) -> bool:
        """Whether any of the first `count` deliveries is still unsettled."""
        return self._end < count

    async def flush(self) -> None:
        """Send what was noted since the last flush; on a lost channel nothing: it comes again."""
        finished, self._finished = self._finished, []
        returned, self._returned = self._returned, []
        if not self.is_open or not (finished or returned):
            return
        try:
            await self._send(finished, returned)
        except LOSSES as error:
            reraise_own_cancellation(error)
            self.close()

    def close(self) -> None:
        """The channel is gone: whatever was not sent comes again."""
        self.is_open = False
        self._finished.clear()
        self._returned.clear()
        # aiormq's queue has room for ten frames, and once its writer has ended nobody makes any:
        # whoever waits for room there would wait for ever.
        flushes, self._flushes = self._flushes, set()
        for until_closed in flushes:
            until_closed.reschedule(0)

    async def _send(self, finished: list[int], returned: list[tuple[int, bool]]) -> None:
        async with asyncio.timeout(None) as until_closed:
            self._flushes.add(until_closed)
            try:
                for tag, requeue in returned:
                    await self._wire.basic_nack(tag, requeue=requeue, wait=False)
                self._advance([*finished, *(tag for tag, _ in returned)])
                await self._ack(finished)
            finally:
                self._flushes.discard(until_closed)

    async def _ack(self, finished: list[int]) -> None:
        # A tag that was settled alone before may end the prefix; naming it again would close
        # the channel. The newest of the prefix that was not is as good.
        upto = max((tag for tag in finished if tag <= self._end), default=0)
        if upto:
            await self._wire.basic_ack(upto, multiple=True, wait=False)
        for tag in finished:
            if tag > upto:
                await self._wire.basic_ack(tag, multiple=False, wait=False)

    def _advance(self, settled: list[int]) -> None:
        beyond, end = self._beyond, self._end
        beyond.update(settled)
        while end + 1 in beyond:
            end += 1
            beyond.discard(end)
        self._end = end


def line_of(channel: AbstractChannel) -> AckLine:
    """A line that is closed when `channel` is: who flushes it does not wait for a dead one."""
    line = AckLine(channel)
    channel.closing.add_done_callback(lambda _: line.close())
    return line
