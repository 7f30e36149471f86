"""Acks of a consumer whose connection ends amid them."""

from __future__ import annotations

import asyncio
import uuid

import aio_pika
import pytest

from fleet.amqp.connection import Link
from fleet.amqp.delivery import Delivery
from fleet.amqp.harvest import Held, open_harvest
from fleet.amqp.subscription import Subscription
from fleet.core.errors import BrokerError
from tests.waiting import DEADLINE_S, until

COUNT = 100


async def filled(amqp_url: str) -> str:
    """A queue with so many messages."""
    queue = f"test.{uuid.uuid4().hex}"
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(
            queue, durable=True, arguments={"x-queue-type": "quorum"}, timeout=DEADLINE_S
        )
        for _ in range(COUNT):
            await channel.default_exchange.publish(aio_pika.Message(b"{}"), queue)
    return queue


async def test_acks_amid_which_the_connection_ends_hold_nobody_up(amqp_url: str):
    """More acks than the client has room for, on a connection that closes: the flush returns.

    What was not acked comes again, on the next connection.
    """
    queue, came = await filled(amqp_url), list[Delivery]()
    async with Link(amqp_url, "acks") as link:
        subscription = Subscription(link, queue, came.append, prefetch=COUNT)
        subscription.start()
        await until(lambda: len(came) == COUNT)
        for delivery in came[1::2]:
            delivery.ack()
        closing = asyncio.create_task((await link.connection()).close())
        await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE_S):
            await came[0].line.flush()
        await asyncio.gather(closing, return_exceptions=True)
        await until(lambda: len(came) >= COUNT + COUNT // 2)
        await subscription.stop()


async def test_an_operators_acks_amid_which_the_connection_ends_are_an_error(amqp_url: str):
    """A command says that the connection was lost, and to run it again; it does not hang."""
    queue, held = await filled(amqp_url), list[Held]()
    async with open_harvest(amqp_url, queue) as harvest:
        await harvest.gather(lambda each: held.append(each) or True)
        for each in held[1::2]:
            harvest.ack(each)
        closing = asyncio.create_task(harvest._connection.close())
        await asyncio.sleep(0)
        with pytest.raises(BrokerError, match="run it again"):
            async with asyncio.timeout(DEADLINE_S):
                await harvest.flush()
        await asyncio.gather(closing, return_exceptions=True)
