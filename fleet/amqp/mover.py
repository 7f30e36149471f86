"""Moves messages out of a queue to somewhere else: publish with confirm, then ack."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple

from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage

from fleet.amqp import frames
from fleet.amqp.acks import line_of
from fleet.amqp.connection import Link
from fleet.amqp.looks import Depth, Looks, connected
from fleet.amqp.losses import LOSSES, reraise_own_cancellation
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.amqp.reasons import explain
from fleet.core.errors import BrokerError, DataError, PublishError, PublishNacked

IN_ORDER: Final = 32
"""In hand at a time: a quorum queue keeps the order of what goes back only up to 32 (3.10)."""
IDLE_S: Final = 0.2
ALONE_S: Final = 20.0
"""How long messages that wait may take to come."""
CONFIRM_S: Final = 30.0
MS: Final = 1000


class Message(NamedTuple):
    """A message on its way; `expiration_ms` is what is left of its own time to live."""

    body: bytes
    headers: Mapping[str, Any]
    expiration_ms: int | None


class Way(NamedTuple):
    """Where it goes, and what it goes with."""

    exchange: str
    key: str
    headers: Mapping[str, Any]
    expiration_ms: int | None = None


class Full(BrokerError):  # noqa: N818 - reads as what it is
    """The queue that messages are moved to takes no more."""


class Mover:
    """Moves messages over one connection; made by `open_mover`.

    Killed at any moment it loses none. What was confirmed and not yet acked is moved again.
    """

    def __init__(
        self, url: str, connection: AbstractConnection, publisher: ConfirmedPublisher
    ) -> None:
        self._url = url
        self._connection = connection
        self._publisher = publisher
        self._looks = Looks(url, connection)

    async def depth(self, queue: str) -> Depth | None:
        """What is in a queue; None where there is none."""
        return (await self._looks.depths([queue])).get(queue)

    async def move(
        self, queue: str, way: Callable[[Message], Way], moved: Callable[[int], object]
    ) -> int:
        """Move what waits in `queue` now, in order; how many there were.

        Less where others take it meanwhile. Returns once all is confirmed. Raises Full where a
        message finds no room, BrokerError where the broker is lost: what is not acked is back.
        """
        most = await self._ready(queue)
        if not most:
            return 0
        try:
            channel = await self._connection.channel(publisher_confirms=False)
            try:
                return await self._run(_Passage(channel, most), queue, way, moved)
            finally:
                await channel.close()
        except LOSSES as error:
            reraise_own_cancellation(error)
            raise explain(self._url, error) from None

    async def _run(
        self,
        passage: _Passage,
        queue: str,
        way: Callable[[Message], Way],
        moved: Callable[[int], object],
    ) -> int:
        await passage.channel.basic_qos(prefetch_count=IN_ORDER)
        await passage.channel.basic_consume(queue, passage.arrive)
        since = time.monotonic()
        while True:
            message = await passage.next()
            if message is not None:
                since = time.monotonic()
                await self._send(passage, message, way)
            elif passage.open and not await self._publisher.drain(CONFIRM_S):
                raise BrokerError("The broker confirms nothing more; run it again.")
            settled = await passage.settle()
            if settled:
                moved(settled)
            elif passage.is_over or (message is None and not await self._ready(queue)):
                return passage.done
            elif time.monotonic() - since > ALONE_S:
                raise BrokerError(
                    f"What waits in {queue} is not given to us; somebody else consumes it."
                    " Run it again."
                )

    async def _ready(self, queue: str) -> int:
        depth = await self.depth(queue)
        return depth.ready if depth else 0

    async def _send(
        self, passage: _Passage, arrived: DeliveredMessage, way: Callable[[Message], Way]
    ) -> None:
        message = _read(arrived)
        exchange, key, headers, expiration_ms = way(message)
        async with asyncio.timeout(CONFIRM_S):
            await self._publisher.room()
        try:
            self._publisher.post(
                exchange,
                key,
                message.body,
                headers=headers,
                expiration_ms=expiration_ms,
                lane=0,
                settled=partial(passage.settled, arrived.delivery_tag or 0),
            )
        except DataError as error:
            raise BrokerError(f"A message cannot be moved: {error}.") from None
        passage.open += 1


class _Passage:
    """What is in hand between one queue and the next: `most` messages in all."""

    def __init__(self, channel: AbstractChannel, most: int) -> None:
        self.channel = channel
        self._left = most
        self.open = 0
        self.done = 0
        self._line = line_of(channel)
        self._arrived: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        self._confirmed: list[int] = []
        self._error: PublishError | None = None

    async def arrive(self, message: DeliveredMessage) -> None:
        self._arrived.put_nowait(message)

    @property
    def is_over(self) -> bool:
        """Whether as many as were wanted are moved."""
        return not self._left and not self.open

    async def next(self) -> DeliveredMessage | None:
        """The next message; None where none came for a moment, or no more is wanted."""
        if not self._left:
            return None
        try:
            async with asyncio.timeout(IDLE_S):
                message = await self._arrived.get()
        except TimeoutError:
            return None
        self._left -= 1
        return message

    def settled(self, tag: int, error: PublishError | None) -> None:
        self.open -= 1
        if error is None:
            self._confirmed.append(tag)
        else:
            self._error = self._error or error

    async def settle(self) -> int:
        """Ack what is confirmed, and say how many; raise what the broker refused."""
        confirmed, self._confirmed = self._confirmed, []
        for tag in confirmed:
            self._line.ack(tag)
        await self._line.flush()
        if not self._line.is_open or self.channel.is_closed:
            raise BrokerError("The connection to the broker was lost; run it again.")
        self.done += len(confirmed)
        if isinstance(self._error, PublishNacked):
            raise Full
        if self._error is not None:
            raise BrokerError(f"{self._error} Run it again.")
        return len(confirmed)


@asynccontextmanager
async def open_mover(url: str) -> AsyncIterator[Mover]:
    """Something to move messages with. Raises BrokerError."""
    async with (
        connected(url) as connection,
        Link(url, "fleet topology migrate") as link,
        ConfirmedPublisher(link, channels=1, max_body=frames.ANY_BODY) as publisher,
    ):
        yield Mover(url, connection, publisher)


def _read(message: DeliveredMessage) -> Message:
    properties = message.header.properties
    left_ms = _left_ms(properties.expiration, properties.timestamp)
    return Message(bytes(message.body), properties.headers or {}, left_ms)


def _left_ms(expiration: str | None, sent: datetime | None) -> int | None:
    if expiration is None:
        return None
    # The time it was sent is told in whole seconds: rather a second too late than too early.
    passed_s = time.time() - sent.timestamp() - 1 if sent else 0
    return max(0, int(expiration) - round(max(0, passed_s) * MS))
