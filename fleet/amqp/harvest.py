"""Takes all that waits in a queue into our hands: to look at it, settle some, give back the rest.

Nothing is acked but what is named, and everything else goes back by basic.nack: a reject or a
closed channel counts towards the delivery limit on every version, a nack does not from 4.3 on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple

from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity

from fleet.amqp.acks import line_of
from fleet.amqp.looks import BACK_S, LOOK_S, TIMEOUT_S, Depth, connected
from fleet.amqp.losses import LOSSES, reraise_own_cancellation
from fleet.amqp.reasons import explain
from fleet.core.errors import BrokerError, OperatorError, TopologyError

HANDFUL: Final = 8_000
"""Taken at a time: of 65,535 from a quorum queue the first came after a second (3.10, measured)."""
IDLE_S: Final = 2.0
ALONE_S: Final = 10.0
"""How long a silent queue may have more to give: where others consume it, and where nobody does."""


class Held(NamedTuple):
    """A message in our hands, unchecked; it is settled by `Harvest.ack` or goes back."""

    exchange: str
    """Where it was published, also where an alternate exchange brought it here."""
    key: str
    headers: Mapping[str, Any]
    body: bytes
    hand: int
    tag: int


Take = Callable[[Held], bool]
"""Shown each message; False: enough for now."""


class _Hand:
    """One channel and all that came by it."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self.line = line_of(channel)
        self.got = 0
        self.news = asyncio.Event()


class Harvest:
    """The waiting messages of one queue, held by us; made by `open_harvest`.

    Every method raises an OperatorError where the broker is lost: then all that is not acked is
    back in the queue.
    """

    def __init__(self, url: str, queue: str, connection: AbstractConnection) -> None:
        self.queue = queue
        self._url = url
        self._connection = connection
        self._hands: list[_Hand] = []
        self._acked = 0
        self._trouble: Exception | None = None

    @property
    def held(self) -> int:
        """How many messages are in our hands."""
        return sum(hand.got for hand in self._hands) - self._acked

    async def depth(self) -> Depth:
        """What waits in the queue. Raises TopologyError where there is no such queue."""
        try:
            channel = await self._connection.channel(publisher_confirms=False)
            async with asyncio.timeout(TIMEOUT_S):
                declared = await channel.queue_declare(self.queue, passive=True)
                await channel.close()
        except ChannelNotFoundEntity:
            raise TopologyError(
                f"There is no queue {self.queue}; run `fleet topology apply` first."
            ) from None
        except LOSSES as error:
            raise self._lost(error) from None
        return Depth(declared.message_count or 0, declared.consumer_count or 0)

    async def gather(self, take: Take) -> int:
        """Show `take` each message that waits now, in order; how many there were.

        What arrives meanwhile is not waited for, and nothing more arrives in our hands after this.
        """
        wanted, total, enough = (await self.depth()).ready, 0, False
        while total < wanted and not enough:
            depth = await self.depth()
            most = min(wanted - total, depth.ready, HANDFUL)
            if not most:
                break
            # What others may have taken in the meantime does not come; with nobody else, all does.
            patience_s = ALONE_S if depth.consumers == 0 else IDLE_S
            got, enough = await self._hold(most, patience_s, take)
            total += got
        return total

    def ack(self, held: Held) -> None:
        """Note that this one is done with; sent by the next `flush`.

        Where everything was given back meanwhile, this one was too: nothing happens.
        """
        if held.hand >= len(self._hands):
            return
        self._hands[held.hand].line.ack(held.tag)
        self._acked += 1

    async def flush(self) -> None:
        """Send the acks that were noted. Raises BrokerError where they cannot be sent."""
        for hand in self._hands:
            await hand.line.flush()
            if not hand.line.is_open or hand.channel.is_closed:
                raise BrokerError("The connection to the broker was lost; run it again.")

    async def give_back(self) -> None:
        """Hand back all that is not acked, as it was.

        A quorum queue keeps the order of what goes back only up to 32 messages (3.10, measured).
        """
        hands, expected = self._hands, self.held
        try:
            # What came last goes back first, so that it does not overtake what came before.
            for hand in reversed(hands):
                await hand.line.flush()
                async with asyncio.timeout(TIMEOUT_S):
                    await hand.channel.basic_nack(0, multiple=True, requeue=True)
            # A channel sends a quorum queue 32 settlements at a time, and what it has not sent when
            # it closes is lost: of 73 acks 33 counted (3.10, measured). What goes back goes last.
            await self._counted(expected)
            for hand in hands:
                async with asyncio.timeout(TIMEOUT_S):
                    await hand.channel.close()
        except LOSSES as error:
            raise self._lost(error) from None
        finally:
            self._hands, self._acked = [], 0

    async def _hold(self, most: int, patience_s: float, take: Take) -> tuple[int, bool]:
        try:
            channel = await self._connection.channel(publisher_confirms=False)
            hand, number = _Hand(channel), len(self._hands)
            self._hands.append(hand)
            enough = False

            async def arrive(message: DeliveredMessage) -> None:
                nonlocal enough
                hand.got += 1
                hand.news.set()
                if not enough:
                    enough = self._show(take, _held(message, number))

            await channel.basic_qos(prefetch_count=most)
            answer = await channel.basic_consume(self.queue, arrive)
            while hand.got < most and not enough and await _news(hand, patience_s):
                pass
            await channel.basic_cancel(answer.consumer_tag or "")
            await asyncio.sleep(0)  # what came before the answer is in tasks that begin now
        except LOSSES as error:
            raise self._lost(error) from None
        if self._trouble is not None:
            raise self._trouble
        return hand.got, enough

    def _show(self, take: Take, held: Held) -> bool:
        """Whether it is enough; what `take` raises must not be lost in a task of aiormq's."""
        try:
            return not take(held)
        except Exception as error:  # noqa: BLE001 - raised by `gather`
            self._trouble = error
            return True

    async def _counted(self, expected: int) -> None:
        """Wait until what was given back can be seen by the next one, or somebody else has it."""
        deadline = time.monotonic() + BACK_S
        while expected and time.monotonic() < deadline:
            if (await self.depth()).ready >= expected:
                return
            await asyncio.sleep(LOOK_S)

    def _lost(self, error: BaseException) -> OperatorError:
        reraise_own_cancellation(error)
        return explain(self._url, error)


@asynccontextmanager
async def open_harvest(url: str, queue: str) -> AsyncIterator[Harvest]:
    """The queue's harvest; at the end all that was not acked is given back. Raises BrokerError."""
    async with connected(url) as connection:
        harvest = Harvest(url, queue, connection)
        try:
            yield harvest
        finally:
            with suppress(OperatorError):  # lost: then it is back by itself
                await harvest.give_back()


def _held(message: DeliveredMessage, hand: int) -> Held:
    return Held(
        exchange=message.exchange or "",
        key=message.routing_key or "",
        headers=message.header.properties.headers or {},
        body=bytes(message.body),
        hand=hand,
        tag=message.delivery_tag or 0,
    )


async def _news(hand: _Hand, patience_s: float) -> bool:
    """Whether anything came in time."""
    hand.news.clear()
    try:
        async with asyncio.timeout(patience_s):
            await hand.news.wait()
    except TimeoutError:
        return False
    return True
