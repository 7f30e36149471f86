"""Takes exchanges and queues away, with all that is in them."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.amqp.looks import connected
from fleet.amqp.losses import LOSSES, reraise_own_cancellation
from fleet.amqp.reasons import explain


async def remove(url: str, exchanges: Iterable[str], queues: Iterable[str]) -> None:
    """Delete these, whatever they hold; what is not there is as good. Raises BrokerError."""
    async with connected(url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        try:
            for exchange in exchanges:
                await channel.exchange_delete(exchange)
            for queue in queues:
                await channel.queue_delete(queue)
        except LOSSES as error:
            reraise_own_cancellation(error)
            raise explain(url, error) from None
