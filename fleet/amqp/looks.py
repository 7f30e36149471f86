"""Looks at queues and leaves them as they are: how much is in them, and what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity

from fleet.amqp.connection import Link
from fleet.amqp.losses import LOSSES, reraise_own_cancellation
from fleet.amqp.reasons import explain
from fleet.amqp.ring import dial
from fleet.core.errors import BrokerError

TIMEOUT_S: Final = 10.0
IDLE_S: Final = 0.5
LOOK_S: Final = 0.02
BACK_S: Final = 2.0
"""How long what was given back may take to be counted as waiting again."""
MOST: Final = 65_535
"""The largest prefetch that AMQP can say."""


class Depth(NamedTuple):
    """What is in a queue: messages that nobody holds, and consumers that may hold others."""

    ready: int
    consumers: int


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AbstractConnection]:
    """A connection for a few looks. Raises BrokerError where there is none to be had."""
    connection, _ = await dial(url, TIMEOUT_S)
    try:
        yield connection
    finally:
        await connection.close()


class Looks:
    """Looks at the queues of one virtual host, one look at a time."""

    def __init__(self, url: str, connection: AbstractConnection) -> None:
        self._url = url
        self._connection = connection
        self._opened: AbstractChannel | None = None
        self._hidden: set[str] = set()

    @property
    def broker(self) -> tuple[str, str]:
        """Product and version of the broker, as it says itself; "" for what it does not say."""
        said = getattr(self._connection, "server_properties", {})
        return str(said.get("product", "")), str(said.get("version", ""))

    async def depths(
        self, queues: Iterable[str], *, veiled: Collection[str] = ()
    ) -> dict[str, Depth]:
        """What is in each of these queues; those that are not there are left out.

        Those of `veiled` are left out, too, where our user may not look at them. Raises
        BrokerError.
        """
        found = {}
        try:
            for queue in queues:
                depth = await (self._seen(queue) if queue in veiled else self._depth(queue))
                if depth is not None:
                    found[queue] = depth
        except LOSSES as error:
            reraise_own_cancellation(error)
            raise explain(self._url, error) from None
        return found

    async def browse(self, queue: str) -> list[DeliveredMessage]:
        """Every message that nobody holds now; all go back, in no order that is promised.

        Up to RabbitMQ 4.2 a look counts as a delivery, so only queues that are made for it
        (failed, unrouted, quarantine) should be looked into.
        """
        seen: list[DeliveredMessage] = []
        holding: list[AbstractChannel] = []
        try:
            while more := await self._hold(queue, holding):
                seen += more
            for channel in reversed(holding):
                await channel.basic_nack(0, multiple=True, requeue=True)
                await channel.close()
            await self._back(queue, len(seen))
        except LOSSES as error:
            reraise_own_cancellation(error)
            raise explain(self._url, error) from None
        return seen

    async def _back(self, queue: str, count: int) -> None:
        """Wait until what was seen is back, or somebody else has it."""
        deadline = time.monotonic() + BACK_S
        while count and time.monotonic() < deadline:
            depth = await self._depth(queue)
            if depth is None or depth.ready >= count:
                return
            await asyncio.sleep(LOOK_S)

    async def _hold(self, queue: str, holding: list[AbstractChannel]) -> list[DeliveredMessage]:
        depth = await self._depth(queue)
        if depth is None or not depth.ready:
            return []
        channel = await self._connection.channel(publisher_confirms=False)
        holding.append(channel)
        got: list[DeliveredMessage] = []
        news = asyncio.Event()

        async def take(message: DeliveredMessage) -> None:
            got.append(message)
            news.set()

        # A long queue lets one wait for its first message; only another consumer can have it.
        patience = IDLE_S if depth.consumers else TIMEOUT_S
        await channel.basic_qos(prefetch_count=min(depth.ready, MOST))
        answer = await channel.basic_consume(queue, take)
        while len(got) < min(depth.ready, MOST):
            news.clear()
            try:
                async with asyncio.timeout(patience):
                    await news.wait()
            except TimeoutError:
                break
        await channel.basic_cancel(answer.consumer_tag or "")
        return got

    async def _seen(self, queue: str) -> Depth | None:
        if queue in self._hidden:  # asked again it would fill the broker's log
            return None
        try:
            return await self._depth(queue)
        except ChannelAccessRefused:
            self._hidden.add(queue)
            return None

    async def _depth(self, queue: str) -> Depth | None:
        if self._opened is None or self._opened.is_closed:
            self._opened = await self._connection.channel(publisher_confirms=False)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                declared = await self._opened.queue_declare(queue, passive=True)
        except ChannelNotFoundEntity:
            return None
        return Depth(declared.message_count or 0, declared.consumer_count or 0)


@asynccontextmanager
async def open_looks(url: str) -> AsyncIterator[Looks]:
    """Something to look at queues with. Raises BrokerError."""
    async with connected(url) as connection:
        yield Looks(url, connection)


class LinkLooks:
    """Looks over the present connection of `link`, for as long as it is wanted."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._looks: tuple[AbstractConnection, Looks] | None = None

    async def depth(self, queue: str) -> Depth | None:
        """What is in a queue; None where there is none, or nobody to ask now."""
        if not self._link.connected:
            return None
        try:
            connection = await self._link.connection()
            if self._looks is None or self._looks[0] is not connection:
                self._looks = connection, Looks(self._link.at, connection)
            return (await self._looks[1].depths([queue])).get(queue)
        except BrokerError:
            return None
