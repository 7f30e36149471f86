"""The ground that the other tests stand on."""

from __future__ import annotations

import aio_pika
import pytest

from fleet.broker import Management, RunningBroker
from fleet.core.errors import BrokerError


async def test_vhost_is_usable(amqp_url: str, vhost: str, management: Management):
    """A test's virtual host takes a quorum queue, and the API sees it there."""
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("mine", durable=True, arguments={"x-queue-type": "quorum"})
        assert [queue["name"] for queue in management.queues(vhost)] == ["mine"]


def test_fresh_broker_survives_a_kill(fresh_broker: RunningBroker, broker: RunningBroker):
    """A killed broker comes back at its old addresses with its old data."""
    assert fresh_broker.amqp_url != broker.amqp_url
    fresh_broker.management().create_vhost("kept")
    fresh_broker.kill()
    fresh_broker.restart()
    assert fresh_broker.management().get("vhosts/kept")["name"] == "kept"


def test_the_management_api_has_users_of_its_own(broker: RunningBroker):
    """The user in MANAGEMENT_URL counts, not that of AMQP_URL with its long password."""
    assert broker.management_url
    guest = broker.management_url.replace("://", "://guest:guest@")
    nobody = f"amqp://nobody:{'x' * 80}@127.0.0.1/"
    assert "/" in Management(guest, nobody).vhosts()
    with pytest.raises(BrokerError, match="refuses GET vhosts with status 401"):
        Management(broker.management_url, nobody).vhosts()
