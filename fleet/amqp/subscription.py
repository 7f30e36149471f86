"""A subscription that hands deliveries over and starts anew whenever it ends."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

import structlog
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage

from fleet.amqp.access import refusal
from fleet.amqp.acks import AckLine
from fleet.amqp.connection import LOSSES, Link, cancelled, reraise_own_cancellation
from fleet.amqp.delivery import Delivery, Origin
from fleet.core.backoff import backoff

OnDelivery = Callable[[Delivery], None]
OnStart = Callable[[str], None]

RPC_TIMEOUT_S: Final = 10.0
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
        self._intake: _Intake | None = None
        self._draining = False
        self._changing = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._delivered = 0
        self._stood_at = time.monotonic()

    @property
    def delivered(self) -> int:
        """How many deliveries came, over all its consumers."""
        return self._delivered + (self._intake.count if self._intake else 0)

    @property
    def in_hand(self) -> int:
        """How many of the present consumer's deliveries are not settled."""
        return self._intake.count - self._intake.line.settled if self._intake else 0

    @property
    def is_consuming(self) -> bool:
        """Whether the broker has confirmed the present consumer."""
        intake = self._intake
        return intake is not None and intake.stands and not intake.ended.is_set()

    @property
    def away_s(self) -> float:
        """How long there has been no consumer; 0 while there is one."""
        return 0.0 if self.is_consuming else time.monotonic() - self._stood_at

    def start(self) -> asyncio.Task[None]:
        """Begin to consume, as soon as the link is up, and for as long as `stop` is not called.

        The task ends by a BrokerError where our user may not read the queue.
        """
        self._task = asyncio.create_task(self._run(), name=f"consume {self.queue}")
        return self._task

    def restart(self) -> None:
        """Give up the present channel: what is unsettled goes back and comes again, in order."""
        if self._intake is not None:
            self._intake.ended.set()

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

    @property
    def is_paused(self) -> bool:
        """Whether it takes nothing because it was told so."""
        return not self._wanted.is_set()

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
        is_new = not self._wanted.is_set()
        self._wanted.set()
        if is_new:
            self._stood_at = time.monotonic()
        async with self._changing:
            intake = self._intake
            if is_new and intake is not None and intake.cancelled:
                await self._renew(intake)

    async def resize(self, prefetch: int) -> None:
        """Have at most `prefetch` in hand from now on; what is there stays until it is settled.

        The broker gives a limit to new consumers only (3.10 to 4.3, measured), so another follows
        on the same channel, and then the one before is cancelled. In a lane that would hand the
        lane on; there the limit is the next consumer's.
        """
        self.prefetch = prefetch
        async with self._changing:
            intake = self._intake
            if intake is None or self.origin.is_lane or not self.is_consuming:
                return
            before = intake.tag
            if await self._renew(intake):
                await self._give_up(intake, before)

    async def _renew(self, intake: _Intake) -> bool:
        """Consume anew on the channel, if that is still wanted; whether it was done."""
        try:
            async with asyncio.timeout(RPC_TIMEOUT_S):
                await intake.channel.basic_qos(prefetch_count=self.prefetch)
                if self._draining or self.is_paused:
                    return False
                await intake.consume()
        except LOSSES as error:
            reraise_own_cancellation(error)
            self.restart()
            return False
        return True

    async def _cancel(self) -> None:
        intake = self._intake
        if intake is None or intake.cancelled or intake.ended.is_set():
            return
        intake.cancelled, intake.stands = True, False
        await self._give_up(intake, intake.tag)

    async def _give_up(self, intake: _Intake, tag: str) -> None:
        try:
            async with asyncio.timeout(RPC_TIMEOUT_S):
                await intake.channel.basic_cancel(tag)
        except LOSSES as error:
            reraise_own_cancellation(error)
            self.restart()

    async def stop(self) -> None:
        """Close the channel: what was not settled goes back to the queue."""
        if self._task is not None:
            await cancelled(self._task)

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
        async with asyncio.timeout(RPC_TIMEOUT_S):
            channel = await connection.channel(publisher_confirms=False)
        intake = _Intake(channel, self.origin, self._on_delivery)
        diverter = self._link.diverter(connection)
        diverter.divert(channel.number, intake.take)
        try:
            async with asyncio.timeout(RPC_TIMEOUT_S):
                await channel.basic_qos(prefetch_count=self.prefetch)
                if self._on_start is not None:
                    self._on_start(self.queue)
                self._intake = intake
                await intake.consume()
            if self._draining or self.is_paused:
                return  # what began meanwhile has nothing to wait for here
            await self._watch(connection, intake)
        finally:
            intake.line.close()
            if intake.stands:
                self._stood_at = time.monotonic()
            self._delivered += intake.count
            self._intake = None
            await _close(channel)
            diverter.restore(channel.number, intake.take)

    async def _watch(self, connection: AbstractConnection, intake: _Intake) -> None:
        """Return when the consumer is over, or silent for long; raise when its channel is closed.

        Silence may be a black hole: a queue deleted and declared again in a moment keeps our
        consumer on its books and gives it messages that never come (3.10, measured), and no count
        that AMQP shows tells that from an empty queue. Starting anew costs next to nothing and
        hands back what was swallowed.
        """
        closing = intake.channel.closing
        ended = asyncio.ensure_future(intake.ended.wait())
        lost = asyncio.ensure_future(self._link.lost(connection))
        try:
            done: set[asyncio.Future[Any]] = set()
            while not done:
                seen = intake.count
                done, _ = await asyncio.wait(
                    {closing, ended, lost},
                    timeout=random.uniform(0.8, 1.2) * self._silence_s,  # noqa: S311 - jitter
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not done and intake.count == seen and not intake.line.holds(seen):
                    return
            if closing in done and not closing.cancelled():
                closing.result()
        finally:
            ended.cancel()
            lost.cancel()


class _Intake:
    """One consumer on one channel: turns what comes by it into deliveries."""

    def __init__(self, channel: AbstractChannel, origin: Origin, hand_over: OnDelivery) -> None:
        self.channel = channel
        self.line = AckLine(channel)
        self.tag = ""
        self.cancelled = self.stands = False
        self.ended = asyncio.Event()
        self.count = 0
        self._origin = origin
        self._hand_over = hand_over

    async def consume(self) -> None:
        self.tag, self.cancelled = f"fleet.{uuid.uuid4().hex}", False
        self.channel.on_consumer_cancel_callbacks.add(self._on_cancel)
        await self.channel.basic_consume(self._origin.queue, _never, consumer_tag=self.tag)
        self.stands = not self.cancelled

    def take(self, tag: int, body: bytes, table: bytes, *, redelivered: bool) -> None:
        self.count += 1
        self._hand_over(
            Delivery(self.line, tag, self._origin, body, table, redelivered=redelivered)
        )

    def _on_cancel(self, _frame: object) -> None:
        self.ended.set()


async def _never(_message: DeliveredMessage) -> None:
    """Stand in for the callback that aiormq asks for; deliveries do not reach it."""


async def _close(channel: AbstractChannel) -> None:
    closing = asyncio.ensure_future(channel.close())
    await asyncio.wait([closing], timeout=RPC_TIMEOUT_S)
    if not closing.done():
        closing.cancel()
    elif not closing.cancelled():
        closing.exception()
