"""The ground that the other tests stand on."""

from __future__ import annotations

import aio_pika

from fleet.broker import Management, RunningBroker


async def test_vhost_is_usable(amqp_url: str, vhost: str, management: Management):
    """A test's virtual host takes a quorum queue, and nobody else's virtual host has it."""
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("mine", durable=True, arguments={"x-queue-type": "quorum"})
        assert [queue["name"] for queue in management.queues(vhost)] == ["mine"]
    assert management.queues("/") == []


async def test_fresh_broker_survives_a_kill(fresh_broker: RunningBroker, broker: RunningBroker):
    """What was confirmed on a durable queue is there after kill -9 and restart."""
    assert fresh_broker.amqp_url != broker.amqp_url
    async with await aio_pika.connect(fresh_broker.amqp_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True, arguments={"x-queue-type": "quorum"})
        await channel.default_exchange.publish(aio_pika.Message(b"kept", delivery_mode=2), "q")
        fresh_broker.kill()
    fresh_broker.restart()
    async with await aio_pika.connect(fresh_broker.amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue("q")
        message = await queue.get(timeout=10)
        assert message.body == b"kept"
        await message.ack()
