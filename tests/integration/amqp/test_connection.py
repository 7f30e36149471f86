"""A link comes back from every loss, and says in one sentence why it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest
from aiormq.abc import AbstractConnection
from aiormq.exceptions import AMQPError

from fleet.amqp.admin import Admin
from fleet.amqp.connection import Link
from fleet.amqp.exchanges import require
from fleet.amqp.looks import open_looks
from fleet.core.errors import BrokerError, TopologyError
from tests.waiting import until

DEADLINE_S = 60


async def works(connection: AbstractConnection) -> bool:
    """Whether the broker answers on this connection."""
    channel = await connection.channel()
    await channel.close()
    return True


async def works_again(link: Link) -> bool:
    """Whether the broker answers on a connection of this link: one may be lost as it is used."""
    try:
        return await works(await link.connection())
    except (AMQPError, OSError):
        return False


async def test_comes_back_after_a_cut(proxy: Any):
    """A cut line gives a new connection, and `on_connect` sees it before anybody else."""
    seen: list[AbstractConnection] = []

    async def look(connection: AbstractConnection) -> None:
        seen.append(connection)

    async with asyncio.timeout(DEADLINE_S), Link(proxy.url, "test", on_connect=look) as link:
        first = await link.connection()
        proxy.cut()
        await link.lost(first)
        second = await link.connection()
        assert second is not first
        assert await works(second)
        assert seen == [first, second]


async def test_a_lost_node_is_left_for_another(proxy: Any, amqp_url: str):
    """A link that knows several nodes works on at another when its own is gone for good."""
    lines = [proxy, type(proxy)(amqp_url)]
    await lines[1].start()
    both = ",".join(line.url for line in lines)
    async with asyncio.timeout(DEADLINE_S), Link(both, "test") as link:
        first = await link.connection()
        mine = next(line for line in lines if line._writers)
        await mine.stop()
        await link.lost(first)
        assert await works(await link.connection())
        assert not mine._writers
    for line in lines:
        await line.stop()


async def test_a_command_passes_over_a_dead_node(amqp_url: str):
    """Whichever of the addresses it begins with, a command finds the node that is there."""
    dead = f"amqp://guest:guest@127.0.0.1:{1}/"
    for _ in range(4):
        async with await Admin.open(f"{dead},{amqp_url}") as admin:
            assert not await admin.exists("queue", "nowhere")
        async with open_looks(f"{amqp_url},{dead}") as looks:
            assert await looks.depths(["nowhere"]) == {}


async def test_comes_back_after_a_dead_line(proxy: Any):
    """A peer that says nothing any more, with its socket open, is noticed by its heartbeat."""
    async with asyncio.timeout(DEADLINE_S), Link(proxy.url, "test", heartbeat_s=1) as link:
        first = await link.connection()
        proxy.freeze()
        await link.lost(first)
        proxy.cut()
        # With a heartbeat this short a process that stands still loses its connection, too.
        await until(partial(works_again, link))


async def test_comes_back_when_a_look_fails(proxy: Any):
    """An `on_connect` that raises after a loss is tried again; nobody sees that connection."""
    failures = iter([None, TopologyError("gone"), ValueError("odd"), None])

    async def look(_: AbstractConnection) -> None:
        if failure := next(failures):
            raise failure

    async with asyncio.timeout(DEADLINE_S), Link(proxy.url, "test", on_connect=look) as link:
        first = await link.connection()
        proxy.cut()
        await link.lost(first)
        assert await works(await link.connection())
        assert next(failures, "spent") == "spent"


async def test_a_stopped_link_gives_no_connection(amqp_url: str):
    """After stop, who asks is told so at once."""
    link = Link(amqp_url, "test")
    await link.start()
    await link.stop()
    with pytest.raises(BrokerError, match="stopped"):
        await link.connection()


async def test_a_missing_exchange(amqp_url: str):
    """A link that requires an exchange that is not there names it, and what to do."""
    with pytest.raises(TopologyError, match=r"pf\.nowhere.*topology apply"):
        await Link(amqp_url, "test", on_connect=require(["pf.nowhere"])).start()


async def fails(url: str, timeout_s: float = 30) -> str:
    """The sentence with which a first connection fails."""
    with pytest.raises(BrokerError) as caught:
        async with asyncio.timeout(DEADLINE_S):
            await Link(url, "test", patience_s=0.1, timeout_s=timeout_s).start()
    return str(caught.value)


async def test_nobody_listens():
    """A broker that is not there is named by its address, without the password."""
    sentence = await fails(f"amqp://user:SECRET@127.0.0.1:{1}/")
    assert "127.0.0.1" in sentence
    assert "AMQP_URL" in sentence
    assert "SECRET" not in sentence
    assert "\n" not in sentence


async def test_no_such_host():
    """A name that does not resolve is named."""
    assert "broker.invalid" in await fails("amqp://user:SECRET@broker.invalid/")


async def test_a_listener_that_says_nothing():
    """A port that accepts and never answers fails after its time."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert "no answer" in await fails(f"amqp://127.0.0.1:{port}/", timeout_s=1)


@asynccontextmanager
async def listener(answer: bytes) -> AsyncIterator[int]:
    """A port that answers the first bytes with these and closes; "" closes at once."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer:
            await reader.read(8)
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("scheme", "answer", "words"),
    [
        ("amqp", b"", "dropped the connection"),
        ("amqps", b"", "dropped the connection"),
        ("amqp", HTTP, "does not speak AMQP 0-9-1"),
        ("amqp", b"AMQP\x00\x01\x00\x00", "does not speak AMQP 0-9-1"),
        ("amqps", HTTP, "does not speak TLS"),
    ],
)
async def test_a_listener_of_another_kind(scheme: str, answer: bytes, words: str):
    """A port that hangs up or speaks something else is a sentence, from a link and an admin."""
    async with listener(answer) as port:
        url = f"{scheme}://127.0.0.1:{port}/"
        sentence = await fails(url)
        with pytest.raises(BrokerError) as caught:
            await Admin.open(url)
    for each in (sentence, str(caught.value)):
        assert words in each
        assert f"127.0.0.1:{port}" in each
        assert each[0].isupper()


async def test_whatever_a_first_connection_raises_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    """What a client lets out by mistake is no traceback for the operator."""

    async def connect(*_: Any, **__: Any) -> AbstractConnection:
        return cast("AbstractConnection", await anext(aiter(nothing())))

    async def nothing() -> AsyncIterator[None]:
        for _ in ():
            yield

    monkeypatch.setattr("fleet.amqp.connection.aiormq.connect", connect)
    assert "dropped the connection" in await fails("amqp://127.0.0.1:1/")


async def test_a_wrong_password(amqp_url: str):
    """A refused user is final at once, and the password is not repeated."""
    host = amqp_url.rpartition("@")[2]
    sentence = await fails(f"amqp://guest:SECRET@{host}")
    assert "refuses user 'guest'" in sentence
    assert "SECRET" not in sentence


async def test_no_such_virtual_host(amqp_url: str):
    """A virtual host that is not there is named."""
    sentence = await fails(amqp_url.rpartition("/")[0] + "/nowhere")
    assert "virtual host 'nowhere'" in sentence


@pytest.mark.parametrize("url", ["", "http://host/", "amqp://", "amqp://h:0/", "amqp://[SECRET"])
async def test_no_address(url: str):
    """What is no AMQP address is said to be none."""
    sentence = await fails(url)
    assert "AMQP_URL is no AMQP address" in sentence
    assert "SECRET" not in sentence
