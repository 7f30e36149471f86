"""One consumer on one channel: what comes by it becomes deliveries, until it is over."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, Final

from aiormq.abc import AbstractChannel, DeliveredMessage

from fleet.amqp.acks import AckLine
from fleet.amqp.delivery import Delivery, Origin

OnDelivery = Callable[[Delivery], None]

RPC_TIMEOUT_S: Final = 10.0
"""How long the broker may take to answer."""


class Consumer:
    """Consumes the queue of `origin` on `channel`, which is its own.

    `on_delivery` is called from the reader of the connection: it only hands over.
    """

    def __init__(self, channel: AbstractChannel, origin: Origin, on_delivery: OnDelivery) -> None:
        self.line = AckLine(channel)
        self.tag = ""
        self.came = 0
        """How many deliveries came."""
        self.stands = False
        """Whether the broker has confirmed it, and nobody has cancelled it since."""
        self.is_cancelled = False
        """Whether we take no more deliveries by it; those in our hands can still be settled."""
        self.ended = asyncio.Event()
        """Set where its channel is to be given up, by us or because the broker cancelled it."""
        self._channel = channel
        self._origin = origin
        self._on_delivery = on_delivery

    @property
    def in_hand(self) -> int:
        """How many of its deliveries are not settled."""
        return self.came - self.line.settled

    async def limit(self, prefetch: int) -> None:
        """Have at most `prefetch` in hand, from the next `consume` on.

        The broker gives a limit to new consumers only (3.10 to 4.3, measured).
        """
        await self._channel.basic_qos(prefetch_count=prefetch)

    async def consume(self) -> None:
        """Begin, or begin anew on the same channel; returns once the broker has confirmed it."""
        self.tag, self.is_cancelled = f"fleet.{uuid.uuid4().hex}", False
        self._channel.on_consumer_cancel_callbacks.add(self._on_cancel)
        await self._channel.basic_consume(self._origin.queue, _never, consumer_tag=self.tag)
        self.stands = not self.is_cancelled

    def take(self, tag: int, body: bytes, table: bytes, *, redelivered: bool) -> None:
        """Take one delivery off the wire, as a `Sink` does."""
        self.came += 1
        self._on_delivery(
            Delivery(self.line, tag, self._origin, body, table, redelivered=redelivered)
        )

    async def cancel(self, tag: str) -> None:
        """Have the broker send nothing more under `tag`, one of those it had."""
        async with asyncio.timeout(RPC_TIMEOUT_S):
            await self._channel.basic_cancel(tag)

    async def over(self, lost: Coroutine[Any, Any, None], silence_s: float) -> None:
        """Return when it has ended, `lost` has, or nothing came for about `silence_s` seconds.

        Raises what closed its channel.

        Silence while nothing is in hand may be a black hole: a queue deleted and declared again
        in a moment keeps our consumer on its books and gives it messages that never come (3.10,
        measured), and no count that AMQP shows tells that from an empty queue. Starting anew costs
        next to nothing and hands back what was swallowed.
        """
        closing = self._channel.closing
        ended, gone = asyncio.ensure_future(self.ended.wait()), asyncio.ensure_future(lost)
        try:
            done: set[asyncio.Future[Any]] = set()
            while not done:
                seen = self.came
                done, _ = await asyncio.wait(
                    {closing, ended, gone},
                    timeout=random.uniform(0.8, 1.2) * silence_s,  # noqa: S311 - jitter
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not done and self.came == seen and not self.line.holds(seen):
                    return
            if closing in done and not closing.cancelled():
                closing.result()
        finally:
            ended.cancel()
            gone.cancel()

    async def close(self) -> None:
        """Close the channel: what was not settled goes back to the queue. Raises nothing."""
        closing = asyncio.ensure_future(self._channel.close())
        await asyncio.wait([closing], timeout=RPC_TIMEOUT_S)
        if not closing.done():
            closing.cancel()
        elif not closing.cancelled():
            closing.exception()

    def _on_cancel(self, _frame: object) -> None:
        self.ended.set()


async def _never(_message: DeliveredMessage) -> None:
    """Stand in for the callback that aiormq asks for; deliveries do not reach it."""
