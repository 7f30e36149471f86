"""Finds out what our user may do, without doing it.

A broker looks at the permission before anything else. So what asks for the impossible is refused as
wrong (406) where it was permitted, and as forbidden (403) where it was not: nothing is published,
nothing delivered. It writes a line into its log for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)
from pamqp import commands

from fleet.amqp.looks import connected
from fleet.amqp.losses import LOSSES, reraise_own_cancellation
from fleet.amqp.reasons import explain

TIMEOUT_S: Final = 10.0


class Rights:
    """What the user of one connection may do; made by `open_rights`.

    Each answer is None where what is asked about is not there. Raises BrokerError where the
    broker is lost.
    """

    def __init__(self, url: str, connection: AbstractConnection) -> None:
        self._url = url
        self._connection = connection

    async def may_publish(self, exchange: str) -> bool | None:
        """Whether it may publish to an exchange."""
        never = commands.Basic.Properties(expiration="never")
        return await self._may(
            lambda channel: channel.basic_publish(b"", exchange=exchange, properties=never)
        )

    async def may_take(self, queue: str) -> bool | None:
        """Whether it may take messages out of a queue."""
        none: dict[str, Any] = {"x-priority": "none"}
        return await self._may(lambda channel: channel.basic_consume(queue, _drop, arguments=none))

    async def may_declare(
        self, exchange: str, kind: str, arguments: Mapping[str, str | int | bool]
    ) -> bool | None:
        """Whether it may declare an exchange that is there, and so delete it too."""
        if await self._may(lambda c: c.exchange_declare(exchange, passive=True)) is None:
            return None
        return await self._may(
            lambda channel: channel.exchange_declare(
                exchange, exchange_type=kind, durable=True, arguments=dict(arguments)
            )
        )

    async def _may(self, attempt: Callable[[AbstractChannel], Awaitable[Any]]) -> bool | None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                channel = await self._connection.channel()
                await attempt(channel)
                await channel.close()
        except ChannelAccessRefused:
            return False
        except ChannelPreconditionFailed:
            return True
        except ChannelNotFoundEntity:
            return None
        except LOSSES as error:
            reraise_own_cancellation(error)
            raise explain(self._url, error) from None
        return True


@asynccontextmanager
async def open_rights(url: str) -> AsyncIterator[Rights]:
    """Something to ask with. Raises BrokerError."""
    async with connected(url) as connection:
        yield Rights(url, connection)


async def _drop(_: object) -> None:
    """Take nothing; nothing comes."""
