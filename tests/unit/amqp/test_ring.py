"""A ring tries the broker's addresses in turn, and stops where another would say the same."""

from __future__ import annotations

import asyncio

import pytest
from aiormq.exceptions import AuthenticationError
from yarl import URL

from fleet.amqp.ring import Ring

NODES = "amqp://one/,amqp://two/,amqp://three/"


class Door:
    """Lets nobody in but at the hosts it is given, and knows who knocked where."""

    def __init__(self, *open_at: str, error: Exception | None = None) -> None:
        self.open_at = open_at
        self.error = error or ConnectionRefusedError("no")
        self.knocked: list[str] = []

    async def connect(self, address: URL) -> str:
        """A connection, which here is its host's name."""
        self.knocked.append(address.host or "")
        if address.host not in self.open_at:
            raise self.error
        return address.host


async def test_the_next_lap_goes_on_after_the_last():
    """Who lost one node looks at the others first, and comes back to it last."""
    ring, door = Ring(NODES, choose=lambda _: 1), Door("two")
    assert await ring.lap(door.connect, 1) == "two"
    assert await ring.lap(door.connect, 1) == "two"
    assert door.knocked == ["two", "three", "one", "two"]


async def test_nobody_is_there():
    """Every node is tried once, and the last one's error is told with its address."""
    ring, door = Ring(NODES, choose=lambda _: 0), Door()
    with pytest.raises(ConnectionRefusedError):
        await ring.lap(door.connect, 1)
    assert door.knocked == ["one", "two", "three"]
    assert ring.at == "amqp://three/"


async def test_a_refused_password_is_final():
    """A cluster has one list of users: a second node is not asked."""
    ring, door = Ring(NODES, choose=lambda _: 2), Door(error=AuthenticationError("403"))
    with pytest.raises(AuthenticationError):
        await ring.lap(door.connect, 1)
    assert door.knocked == ["three"]


async def test_a_node_that_says_nothing_is_left():
    """A node that does not answer in time is passed over."""

    async def connect(address: URL) -> str:
        if address.host == "one":
            await asyncio.Event().wait()
        return address.host or ""

    assert await Ring(NODES, choose=lambda _: 0).lap(connect, 0.05) == "two"
