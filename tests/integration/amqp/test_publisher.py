"""Every message is answered once, and truly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from aiormq import Connection
from aiormq.abc import AbstractChannel

from fleet.amqp.connection import Link
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.errors import (
    DataError,
    PublishError,
    PublishNacked,
    PublishReturned,
    PublishUnknown,
)

DEADLINE_S = 60
FULL: Mapping[str, Any] = {"x-max-length": 1, "x-overflow": "reject-publish"}


@asynccontextmanager
async def publisher(url: str, **limits: Any) -> AsyncGenerator[ConfirmedPublisher, None]:
    """A publisher on a link of its own."""
    link = Link(url, "test")
    async with asyncio.timeout(DEADLINE_S), link, ConfirmedPublisher(link, **limits) as it:
        yield it


@asynccontextmanager
async def channel(url: str) -> AsyncGenerator[AbstractChannel, None]:
    """A channel to declare and look with."""
    async with Connection(url) as connection:
        yield await connection.channel()


async def declare(url: str, queue: str = "q", arguments: Mapping[str, Any] | None = None) -> None:
    """A queue bound to the exchange x under its own name."""
    async with channel(url) as each:
        await each.exchange_declare("x", exchange_type="topic", durable=True)
        await each.queue_declare(queue, durable=True, arguments=dict(arguments or {}))
        await each.queue_bind(queue, "x", queue)


async def drain(url: str, queue: str = "q") -> list[Any]:
    """All the messages of a queue."""
    found = []
    async with channel(url) as each:
        while (message := await each.basic_get(queue, no_ack=True)).body:
            found.append(message)
    return found


async def refused(it: ConfirmedPublisher, body: bytes, timeout_s: float = 5.0) -> bool:
    """Whether the broker could not be made to confirm it."""
    try:
        await it.publish("x", "q", body, timeout_s=timeout_s)
    except PublishUnknown:
        return True
    return False


async def test_a_confirmed_message_is_in_the_queue(amqp_url: str):
    """What publish returned for is there, with body and headers."""
    await declare(amqp_url)
    async with publisher(amqp_url) as it:
        await it.publish("x", "q", b"body", headers={"x-event-id": "1"}, expiration_ms=60_000)
    (message,) = await drain(amqp_url)
    assert message.body == b"body"
    assert message.header.properties.headers == {"x-event-id": "1"}
    assert message.header.properties.expiration == "60000"


@pytest.mark.parametrize("size", [131_064, 131_065, 1 << 20])
async def test_large_bodies_arrive_whole(amqp_url: str, size: int):
    """Bodies of more than one frame are put together again by the broker."""
    await declare(amqp_url)
    body = bytes(range(256)) * (size // 256 + 1)
    async with publisher(amqp_url) as it:
        await it.publish("x", "q", body[:size])
    (message,) = await drain(amqp_url)
    assert message.body == body[:size]


async def test_returned_and_confirmed_beside_each_other(amqp_url: str):
    """Of two in flight on one channel, the one that nobody takes is returned, the other is not."""
    await declare(amqp_url)
    async with publisher(amqp_url, channels=1) as it:
        answers = await asyncio.gather(
            *(it.publish("x", key, b"body") for key in ["q", "nobody"] * 20),
            return_exceptions=True,
        )
    assert answers[0::2] == [None] * 20
    assert all(isinstance(answer, PublishReturned) for answer in answers[1::2])
    assert len(await drain(amqp_url)) == 20


async def test_a_full_queue_nacks(amqp_url: str):
    """A queue at its limit refuses, and each answer is true of its own message."""
    await declare(amqp_url, arguments=FULL)
    async with publisher(amqp_url) as it:
        answers = await asyncio.gather(
            *(it.publish("x", "q", str(number).encode()) for number in range(50)),
            return_exceptions=True,
        )
    confirmed = {str(number).encode() for number, each in enumerate(answers) if each is None}
    refused = [answer for answer in answers if answer is not None]
    assert refused
    assert all(isinstance(answer, PublishNacked) for answer in refused)
    assert {message.body for message in await drain(amqp_url)} == confirmed


async def test_the_window_is_never_passed(amqp_url: str):
    """However many publish at once, only so many are unconfirmed."""
    await declare(amqp_url)
    most = 0

    async def one(it: ConfirmedPublisher) -> None:
        nonlocal most
        await it.publish("x", "q", b"body")
        most = max(most, it.in_flight)

    async with publisher(amqp_url, window=5) as it:
        await asyncio.gather(*(one(it) for _ in range(50)))
        assert most <= 5
        assert await it.drain(DEADLINE_S)
        assert it.in_flight == 0
    assert len(await drain(amqp_url)) == 50


async def test_the_window_counts_bytes(amqp_url: str):
    """Large bodies fill the window before their number does."""
    await declare(amqp_url)
    async with publisher(amqp_url, window_bytes=100_000) as it:
        await it.room()
        it.post("x", "q", bytes(100_000), settled=print)
        assert not it.free
        await it.room()
        assert it.in_flight == 0


async def test_order_within_a_lane(amqp_url: str):
    """Messages of one lane arrive in the order in which they were posted."""
    await declare(amqp_url)
    async with publisher(amqp_url) as it:
        for number in range(300):
            await it.room()
            it.post("x", "q", str(number).encode(), settled=print, lane=7)
        assert await it.drain(DEADLINE_S)
    bodies = [int(message.body) for message in await drain(amqp_url)]
    assert bodies == list(range(300))


async def test_too_large_is_refused_before_it_is_sent(amqp_url: str):
    """Over a mebibyte it is a DataError, and the channel lives on."""
    await declare(amqp_url)
    async with publisher(amqp_url) as it:
        with pytest.raises(DataError):
            await it.publish("x", "q", bytes((1 << 20) + 1))
        with pytest.raises(DataError):
            await it.publish("x", "k" * 256, b"body")
        await it.publish("x", "q", b"body")
        assert it.in_flight == 0


async def test_a_missing_exchange_harms_only_for_a_while(amqp_url: str):
    """The broker closes the channel: the message is unknown, and publishing goes on."""
    await declare(amqp_url)
    async with publisher(amqp_url) as it:
        with pytest.raises(PublishUnknown):
            await it.publish("nowhere", "q", b"body")
        await it.publish("x", "q", b"body")


async def test_nothing_is_sent_without_a_connection():
    """Where the broker cannot be reached, publish says so after its time, and does not hang."""
    it = ConfirmedPublisher(Link("amqp://127.0.0.1:1/", "test"))
    with pytest.raises(PublishUnknown, match="nothing was sent"):
        await it.publish("x", "q", b"body", timeout_s=0.05)


async def test_a_stopped_publisher_refuses(amqp_url: str):
    """Who waits for room when it stops is told so."""
    async with publisher(amqp_url) as it:
        pass
    with pytest.raises(PublishUnknown, match="stopped"):
        await it.room()


async def test_a_cut_line_makes_unknown_and_comes_back(amqp_url: str, proxy: Any):
    """What was in flight when the line was cut is unknown; what was confirmed is there."""
    await declare(amqp_url)
    confirmed: set[bytes] = set()
    unknown: set[bytes] = set()

    def settled(body: bytes, error: PublishError | None) -> None:
        assert error is None or isinstance(error, PublishUnknown)
        (unknown if error else confirmed).add(body)

    async with publisher(proxy.url) as it:
        for number in range(3000):
            await it.room()
            body = str(number).encode()
            it.post("x", "q", body, settled=partial(settled, body))
            if number == 1000:
                proxy.cut()
        assert await it.drain(DEADLINE_S)
    there = {message.body for message in await drain(amqp_url)}
    assert len(confirmed) + len(unknown) == 3000
    assert unknown
    assert confirmed <= there <= confirmed | unknown


async def test_no_answer_is_unknown_and_frees_the_window(amqp_url: str, proxy: Any):
    """While the line is dead, each message is unknown after its time, and the next may try."""
    await declare(amqp_url)
    async with publisher(proxy.url, window=2) as it:
        await it.publish("x", "q", b"before")
        proxy.freeze()
        for _ in range(2):
            with pytest.raises(PublishUnknown):
                await it.publish("x", "q", b"during", timeout_s=0.1)
        proxy.cut()
        while await refused(it, b"after"):
            pass
    bodies = [message.body for message in await drain(amqp_url)]
    assert bodies[0] == b"before"
    assert bodies[-1] == b"after"


async def test_what_cannot_be_written_is_bounded(amqp_url: str, proxy: Any):
    """However often it is tried on a line that takes nothing, only a window of it is held."""
    await declare(amqp_url)
    async with publisher(proxy.url, window=2, channels=1) as it:
        await it.publish("x", "q", b"before")
        proxy.freeze()
        for _ in range(16):
            assert await refused(it, bytes(1 << 20), timeout_s=0.01)
            assert it._session is None or len(it._session._outbox) <= 2
        proxy.cut()


async def test_a_cancelled_publish_harms_nobody(amqp_url: str):
    """Who gives up waiting leaves the window as it was; the message arrives all the same."""
    await declare(amqp_url)
    async with publisher(amqp_url, window=1) as it:
        await it.room()
        task = asyncio.create_task(it.publish("x", "q", b"body"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await it.publish("x", "q", b"body")
    assert len(await drain(amqp_url)) == 2


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8, 13])
async def test_a_publisher_stops_while_it_opens_its_channels(amqp_url: str, turns: int):
    """A stop that comes before the publisher is ready ends it all the same."""
    async with asyncio.timeout(DEADLINE_S), Link(amqp_url, "test") as link:
        publisher = ConfirmedPublisher(link)
        await publisher.start()
        for _ in range(turns):
            await asyncio.sleep(0)
        await publisher.stop()
