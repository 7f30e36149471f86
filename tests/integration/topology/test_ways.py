"""Where a message goes: each way through the layout, on a real broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import DeliveryError, PublishError

from fleet.amqp.admin import Admin
from topology import names

DEADLINE_S = 60.0


async def publish(
    channel: AbstractChannel, exchange: str, key: str, body: bytes = b"x", **options: Any
) -> None:
    """Publish, confirmed; raises PublishError where nothing took it."""
    message = Message(body, delivery_mode=DeliveryMode.PERSISTENT, **options)
    target = await channel.get_exchange(exchange, ensure=False)
    await target.publish(message, key, mandatory=True, timeout=DEADLINE_S)


async def arrival(channel: AbstractChannel, queue: str) -> AbstractIncomingMessage:
    """The next message of a queue, unsettled. Consumed: lanes refuse to be got from."""
    first: asyncio.Future[AbstractIncomingMessage] = asyncio.get_running_loop().create_future()

    async def take(message: AbstractIncomingMessage) -> None:
        first.set_result(message)

    await channel.set_qos(prefetch_count=1)
    source = await channel.get_queue(queue, ensure=False)
    tag = await source.consume(take)
    async with asyncio.timeout(DEADLINE_S):
        message = await first
    await source.cancel(tag)
    return message


async def depths(channel: AbstractChannel, *queues: str) -> list[int | None]:
    """How many messages are ready in each queue."""
    found = [await channel.declare_queue(name, passive=True) for name in queues]
    return [queue.declaration_result.message_count for queue in found]


async def log_holds(channel: AbstractChannel, body: bytes) -> None:
    """Return once the log shows the body; fails at the deadline."""
    seen = asyncio.Event()

    async def look(message: AbstractIncomingMessage) -> None:
        await message.ack()
        if message.body == body:
            seen.set()

    await channel.set_qos(prefetch_count=10)
    log = await channel.get_queue(names.LOG, ensure=False)
    tag = await log.consume(look, arguments={"x-stream-offset": "first"})
    async with asyncio.timeout(DEADLINE_S):
        await seen.wait()
    await log.cancel(tag)


async def test_an_event_reaches_each_service_that_wants_it(channel: AbstractChannel):
    """Fan-out costs one queue: both services have the event, once each, and so has the log."""
    await publish(channel, names.INGEST, "wallet.low_balance", b"low")
    assert [(await arrival(channel, name)).body for name in ("pf.agent", "pf.risk")] == [b"low"] * 2
    assert await depths(channel, "pf.agent", "pf.risk", names.UNROUTED) == [0, 0, 0]
    await log_holds(channel, b"low")


async def test_an_event_nobody_wants_is_unrouted_and_logged(channel: AbstractChannel):
    """What no service bound waits in pf.unrouted, and stands in the log like any other."""
    await publish(channel, names.INGEST, "escrow.released", b"unwanted")
    assert (await arrival(channel, names.UNROUTED)).body == b"unwanted"
    await log_holds(channel, b"unwanted")


async def test_a_tick_reaches_its_lane_only(channel: AbstractChannel):
    """The integer header chooses one lane of three; the work queue gets no copy."""
    await publish(channel, names.INGEST, "market.tick", b"tick", headers={names.PARTITION: 2})
    assert (await arrival(channel, "pf.agent.ticks.2")).body == b"tick"
    others = await depths(channel, "pf.agent", "pf.agent.ticks.0", "pf.agent.ticks.1")
    assert others == [0, 0, 0]


@pytest.mark.parametrize("headers", [{names.PARTITION: 3}, {names.PARTITION: "2"}, {}])
async def test_a_tick_without_a_lane_is_unrouted(channel: AbstractChannel, headers: dict[str, Any]):
    """A partition that nobody bound, or one that is no integer, is kept and seen."""
    await publish(channel, names.INGEST, "market.tick", b"astray", headers=headers)
    assert (await arrival(channel, names.UNROUTED)).body == b"astray"


async def test_a_full_lane_says_no(channel: AbstractChannel, admin: Admin):
    """A lane that is full nacks the publisher: nothing is dropped behind anybody's back."""
    arguments = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    await admin.declare_queue("pf.agent.ticks.9", arguments)
    match = {"x-match": "all", names.PARTITION: 9}
    await admin.bind_queue("pf.agent.ticks.9", "pf.agent.ticks", "", match)
    ticks = (
        publish(channel, names.INGEST, "market.tick", headers={names.PARTITION: 9})
        for _ in range(50)  # a quorum queue counts with a little delay
    )
    outcomes = [await asyncio.gather(tick, return_exceptions=True) for tick in ticks]
    nacks = [each for [each] in outcomes if isinstance(each, DeliveryError)]
    assert nacks
    assert not [each for each in nacks if isinstance(each, PublishError)]  # nacked, not returned


@pytest.mark.parametrize("queue", ["pf.agent", "pf.agent.ticks.1"])
async def test_what_is_rejected_lands_in_the_failed_queue(channel: AbstractChannel, queue: str):
    """Dead-lettered by work queue or lane, a message waits in its own service's failed queue."""
    await publish(channel, names.REDELIVER, queue, b"bad")
    await (await arrival(channel, queue)).reject(requeue=False)
    failed = await arrival(channel, "pf.agent.failed")
    assert failed.body == b"bad"
    assert failed.headers["x-death"][0]["queue"] == queue  # type: ignore[index,call-overload]
    assert await depths(channel, "pf.risk.failed", names.UNROUTED) == [0, 0]


async def test_a_delayed_message_comes_home_to_its_queue_only(channel: AbstractChannel):
    """From the bucket it goes to the work queue where it failed, to no other service, not twice."""
    await publish(channel, names.REDELIVER, "pf.agent.retry.00", b"again", expiration=0.05)
    home = await arrival(channel, "pf.agent")
    assert home.body == b"again"
    assert home.routing_key == "pf.agent"
    rest = ("pf.agent", "pf.risk", "pf.agent.failed", "pf.agent.retry.00", names.UNROUTED)
    assert await depths(channel, *rest) == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("exchange", [names.REDELIVER, names.DLX])
async def test_the_way_to_a_queue_that_is_gone_ends_in_unrouted(
    channel: AbstractChannel, exchange: str
):
    """A bucket is never blocked by a message whose home was deleted."""
    await publish(channel, exchange, "pf.nowhere", b"homeless")
    assert (await arrival(channel, names.UNROUTED)).body == b"homeless"


async def test_a_dropping_service_fails_its_oldest(channel: AbstractChannel, admin: Admin):
    """With overflow `drop` the publisher is not held back, and the oldest is not lost."""
    arguments = {
        "x-queue-type": "quorum",
        "x-overflow": "drop-head",
        "x-max-length": 1,
        "x-dead-letter-exchange": names.DLX,
        "x-dead-letter-routing-key": "pf.risk.failed",
    }
    await admin.declare_queue("pf.small", arguments)
    await admin.bind_queue("pf.small", names.REDELIVER, "pf.small", {})
    for body in (b"oldest", b"newest"):
        await publish(channel, names.REDELIVER, "pf.small", body)
    assert (await arrival(channel, "pf.risk.failed")).body == b"oldest"
    assert (await arrival(channel, "pf.small")).body == b"newest"
