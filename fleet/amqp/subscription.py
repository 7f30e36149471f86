"""A subscription: one consumer after the other on a queue, for as long as it is wanted."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final

import structlog
from aiormq.abc import AbstractConnection

from fleet.amqp.access import refusal
from fleet.amqp.connection import Link
from fleet.amqp.consumer import RPC_TIMEOUT_S, Consumer, OnDelivery
from fleet.amqp.delivery import Origin
from fleet.amqp.losses import LOSSES, cancelled, reraise_own_cancellation
from fleet.core.backoff import backoff

OnStart = Callable[[str], None]

SILENCE_S: Final = 15.0
PROVED_S: Final = 10.0
"""How long a consumer must have stood for the next one to be tried without waiting longer."""

log = structlog.get_logger("fleet.amqp")


class Subscription:
    """Consumes one queue over `link` and calls `on_delivery` for each message, in order.

    `on_delivery` is called from the reader of the connection: it only hands over. `on_start` is
    told the queue's name each time consuming begins anew; whatever was unsettled before then is
    gone from our hands and comes again.

    It starts anew, with a fresh channel and a fresh consumer tag, when the connection or the
    channel closes, when the broker cancels the consumer, and when nothing came for about
    `silence_s` while nothing was in our hands.
    """

    def __init__(
        self,
        link: Link,
        queue: str,
        on_delivery: OnDelivery,
        *,
        is_lane: bool = False,
        prefetch: int = 200,
        on_start: OnStart | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        self.queue = queue
        self.origin = Origin(queue, is_lane)
        self.prefetch = prefetch
        self._link = link
        self._on_delivery = on_delivery
        self._on_start = on_start
        self._silence_s = silence_s
        self._task: asyncio.Task[None] | None = None
        self._consumer: Consumer | None = None
        self._draining = False
        self._changing = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._came = 0
        self._stood_at = time.monotonic()

    @property
    def delivered(self) -> int:
        """How many deliveries came, over all its consumers."""
        return self._came + (self._consumer.came if self._consumer else 0)

    @property
    def in_hand(self) -> int:
        """How many of the present consumer's deliveries are not settled."""
        return self._consumer.in_hand if self._consumer else 0

    @property
    def is_consuming(self) -> bool:
        """Whether the broker has confirmed the present consumer."""
        consumer = self._consumer
        return consumer is not None and consumer.stands and not consumer.ended.is_set()

    @property
    def away_s(self) -> float:
        """How long there has been no consumer; 0 while there is one."""
        return 0.0 if self.is_consuming else time.monotonic() - self._stood_at

    @property
    def is_paused(self) -> bool:
        """Whether it takes nothing because it was told so."""
        return not self._wanted.is_set()

    def start(self) -> asyncio.Task[None]:
        """Begin to consume, as soon as the link is up, and for as long as `stop` is not called.

        The task ends by a BrokerError where our user may not read the queue.
        """
        self._task = asyncio.create_task(self._run(), name=f"consume {self.queue}")
        return self._task

    async def stop(self) -> None:
        """Close the channel: what was not settled goes back to the queue."""
        if self._task is not None:
            await cancelled(self._task)

    def restart(self) -> None:
        """Give up the present channel: what is unsettled goes back and comes again, in order."""
        if self._consumer is not None:
            self._consumer.ended.set()

    async def cancel(self) -> None:
        """Take no more deliveries; those in our hands can still be settled.

        A lane stays ours until `stop`: whoever had it next would be given newer ones before those
        that are still in our hands. What comes meanwhile goes back with them, in order.
        """
        self._draining = True
        if self.origin.is_lane:
            return
        async with self._changing:
            await self._cancel()

    async def pause(self) -> None:
        """Take no more deliveries until `resume`.

        Those in our hands can still be settled, but for a lane's: they go back at once and in
        order, for whoever had the lane next would be given newer ones before them.
        """
        self._wanted.clear()
        if self.origin.is_lane:
            self.restart()
            return
        async with self._changing:
            await self._cancel()

    async def resume(self) -> None:
        """Take deliveries again after a pause."""
        is_new = self.is_paused
        self._wanted.set()
        if is_new:
            self._stood_at = time.monotonic()
        async with self._changing:
            consumer = self._consumer
            if is_new and consumer is not None and consumer.is_cancelled:
                await self._renew(consumer)

    async def resize(self, prefetch: int) -> None:
        """Have at most `prefetch` in hand from now on; what is there stays until it is settled.

        Another consumer follows on the same channel, and then the one before is cancelled. In a
        lane that would hand the lane on; there the limit is the next consumer's.
        """
        self.prefetch = prefetch
        async with self._changing:
            consumer = self._consumer
            if consumer is None or self.origin.is_lane or not self.is_consuming:
                return
            before = consumer.tag
            if await self._renew(consumer):
                await self._give_up(consumer, before)

    async def _renew(self, consumer: Consumer) -> bool:
        """Consume anew on the channel, if that is still wanted; whether it was done."""
        try:
            async with asyncio.timeout(RPC_TIMEOUT_S):
                await consumer.limit(self.prefetch)
                if self._draining or self.is_paused:
                    return False
                await consumer.consume()
        except LOSSES as error:
            reraise_own_cancellation(error)
            self.restart()
            return False
        return True

    async def _cancel(self) -> None:
        consumer = self._consumer
        if consumer is None or consumer.is_cancelled or consumer.ended.is_set():
            return
        consumer.is_cancelled, consumer.stands = True, False
        await self._give_up(consumer, consumer.tag)

    async def _give_up(self, consumer: Consumer, tag: str) -> None:
        try:
            await consumer.cancel(tag)
        except LOSSES as error:
            reraise_own_cancellation(error)
            self.restart()

    async def _run(self) -> None:
        delays = backoff(random.uniform, first=0.2, cap=15.0)
        while not self._draining:
            await self._wanted.wait()
            connection = await self._link.connection()
            if self.is_paused:
                continue
            began = time.monotonic()
            try:
                await self._consume(connection)
            except (*LOSSES, Exception) as error:  # noqa: BLE001 - whatever it is, it starts anew
                reraise_own_cancellation(error)
                if refused := refusal(error):
                    raise refused from None
                log.warning("consumer lost", queue=self.queue, reason=str(error)[:200])
            if time.monotonic() - began > PROVED_S:
                delays = backoff(random.uniform, first=0.2, cap=15.0)
            await asyncio.sleep(next(delays))

    async def _consume(self, connection: AbstractConnection) -> None:
        """Have a consumer until it is over; raises what it ended by."""
        async with asyncio.timeout(RPC_TIMEOUT_S):
            channel = await connection.channel(publisher_confirms=False)
        consumer = Consumer(channel, self.origin, self._on_delivery)
        diverter = self._link.diverter(connection)
        diverter.divert(channel.number, consumer.take)
        try:
            async with asyncio.timeout(RPC_TIMEOUT_S):
                await consumer.limit(self.prefetch)
                if self._on_start is not None:
                    self._on_start(self.queue)
                self._consumer = consumer
                await consumer.consume()
            if self._draining or self.is_paused:
                return  # what began meanwhile has nothing to wait for here
            await consumer.over(self._link.lost(connection), self._silence_s)
        finally:
            consumer.line.close()
            if consumer.stands:
                self._stood_at = time.monotonic()
            self._came += consumer.came
            self._consumer = None
            await consumer.close()
            diverter.restore(channel.number, consumer.take)
