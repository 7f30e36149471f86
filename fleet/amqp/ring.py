"""The addresses of one broker: a cluster has several, and any of them will do."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiormq
from aiormq.abc import AbstractConnection
from yarl import URL

from fleet.amqp.losses import reraise_own_cancellation
from fleet.amqp.reasons import explain, is_final, parse
from fleet.settings import addresses

T = TypeVar("T")

# What it would write to stderr, the error says in one sentence.
logging.getLogger("aiormq").addHandler(logging.NullHandler())


class Ring:
    """The addresses in `urls`, begun with any one of them, so that replicas spread over the nodes.

    `at` is the one that was tried last.
    """

    def __init__(self, urls: str, choose: Callable[[int], int] = random.randrange) -> None:
        self._urls = addresses(urls)
        self._turn = choose(len(self._urls))
        self.at = self._urls[self._turn]

    async def lap(self, connect: Callable[[URL], Awaitable[T]], timeout_s: float) -> T:
        """What `connect` makes of the first address that is to be had, `timeout_s` for each.

        Goes on after the address that the last lap ended with. Raises what the last address
        raised, or at once where another node would say the same: a refused password.
        """
        for left in reversed(range(len(self._urls))):
            self.at = self._urls[self._turn]
            self._turn = (self._turn + 1) % len(self._urls)
            try:
                async with asyncio.timeout(timeout_s):
                    return await connect(parse(self.at))
            except (Exception, asyncio.CancelledError) as error:
                reraise_own_cancellation(error)
                if not left or is_final(error):
                    raise
        raise AssertionError("there is an address")


async def dial(urls: str, timeout_s: float) -> tuple[AbstractConnection, str]:
    """A connection that nobody supervises, to whichever node is to be had, and that one's address.

    Raises BrokerError, one sentence for the operator, where there is none.
    """
    ring = Ring(urls)
    try:
        return await ring.lap(aiormq.connect, timeout_s), ring.at
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - as a Link does
        reraise_own_cancellation(error)
        raise explain(ring.at, error) from None
