"""Looks, on each new connection, whether what is published to is there."""

from __future__ import annotations

from collections.abc import Sequence

from aiormq.abc import AbstractConnection
from aiormq.exceptions import ChannelNotFoundEntity

from fleet.amqp.connection import OnConnect
from fleet.core.errors import TopologyError

RPC_TIMEOUT_S = 10.0


def require(exchanges: Sequence[str]) -> OnConnect:
    """A look for a Link's `on_connect`: it raises TopologyError where an exchange is missing."""

    async def look(connection: AbstractConnection) -> None:
        for exchange in exchanges:
            # A passive declare of what is not there closes the channel: one for each.
            channel = await connection.channel()
            try:
                await channel.exchange_declare(exchange, passive=True, timeout=RPC_TIMEOUT_S)
            except ChannelNotFoundEntity:
                raise TopologyError(
                    f"The exchange {exchange} is not there; run `fleet topology apply` first."
                ) from None
            await channel.close()

    return look
