"""Reads the log, a stream queue, from its first message to where it stands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity

from fleet.amqp.looks import connected
from fleet.amqp.losses import LOSSES, reraise_own_cancellation
from fleet.amqp.reasons import explain
from fleet.core.errors import BrokerError, TopologyError

PREFETCH: Final = 4000
IDLE_S: Final = 0.5
LOOKS: Final = 2
"""Idle times in a row after which the log has told all it has."""
LATE_LOOKS: Final = 6
PATIENCE_S: Final = 10.0
"""How long messages that the queue counts may take to come."""


class Logged(NamedTuple):
    """A message of the log, unchecked."""

    key: str
    headers: Mapping[str, Any]
    body: bytes


class LogReader:
    """A reader of one stream queue; made by `open_log`."""

    def __init__(
        self, url: str, queue: str, channel: AbstractChannel, since: datetime | None = None
    ) -> None:
        self.read = 0
        self._since = since
        self._url = url
        self._queue = queue
        self._channel = channel
        self._arrived: list[Logged] = []
        self._last_tag = 0
        self._last_s = 0.0
        self._news = asyncio.Event()

    async def begin(self) -> None:
        """Start to consume from the first message, or near a time: some before it come too."""
        offset = "first" if self._since is None else self._since
        await self._channel.basic_qos(prefetch_count=PREFETCH)
        await self._channel.basic_consume(
            self._queue, self._arrive, arguments={"x-stream-offset": offset}
        )

    async def first(self) -> Logged | None:
        """The oldest message that the stream still has; None where it has none.

        Raises BrokerError where the broker is lost, or does not send it.
        """
        try:
            # Counts lag: where none are counted, a first one may come all the same.
            if not await self._within(LOOKS * IDLE_S) and not await self._count():
                return None
            if not await self._within(PATIENCE_S):
                raise BrokerError(f"The broker does not send the first message of {self._queue}.")
        except LOSSES as error:
            reraise_own_cancellation(error)
            raise explain(self._url, error) from None
        return self._arrived[0]

    async def catch_up(self, take: Callable[[Logged], object]) -> int:
        """Hand over what was there when called and was not yet; how many there were.

        A stream does not say where it ends. It has been read when nothing came for twice half a
        second and no fewer messages came than the queue counts (a count that lags, but never runs
        ahead), or when one came that was published after the call.
        Raises BrokerError where the broker is lost.
        """
        before, idle, waited = self.read, 0, 0.0
        called_s = time.time()
        # From a time on, the queue's count says nothing: patience stands for it.
        looks = LOOKS if self._since is None else LATE_LOOKS
        try:
            while idle < looks or (
                not self._since and waited < PATIENCE_S and self.read < await self._count()
            ):
                if await self._within(IDLE_S):
                    idle, waited = 0, 0.0
                    await self._hand_over(take)
                    if self._last_s > called_s + 1:  # AMQP's times are whole seconds
                        break
                else:
                    idle, waited = idle + 1, waited + IDLE_S
        except LOSSES as error:
            reraise_own_cancellation(error)
            raise explain(self._url, error) from None
        return self.read - before

    async def _arrive(self, message: DeliveredMessage) -> None:
        headers = message.header.properties.headers or {}
        sent = message.header.properties.timestamp
        self._last_s = sent.timestamp() if sent else 0.0
        self._arrived.append(Logged(message.routing_key or "", headers, bytes(message.body)))
        self._last_tag = message.delivery_tag or 0
        self._news.set()

    async def _within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def _hand_over(self, take: Callable[[Logged], object]) -> None:
        arrived, self._arrived = self._arrived, []
        self._news.clear()
        self.read += len(arrived)
        await self._channel.basic_ack(self._last_tag, multiple=True, wait=False)
        for message in arrived:
            take(message)
        await asyncio.sleep(0.005)  # so that the next look finds many and not one

    async def _count(self) -> int:
        declared = await self._channel.queue_declare(self._queue, passive=True)
        return declared.message_count or 0


@asynccontextmanager
async def open_log(url: str, queue: str, since: datetime | None = None) -> AsyncIterator[LogReader]:
    """A reader of the stream `queue`, from its first message or from near a time.

    Raises BrokerError, TopologyError where it is not there.
    """
    async with connected(url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        reader = LogReader(url, queue, channel, since)
        try:
            await reader.begin()
        except ChannelNotFoundEntity:
            raise TopologyError(
                f"The log {queue} is not there; run `fleet topology apply` first."
            ) from None
        except LOSSES as error:
            reraise_own_cancellation(error)
            raise explain(url, error) from None
        yield reader
