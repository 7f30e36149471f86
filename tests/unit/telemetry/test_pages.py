"""The small server answers what it is asked, and nobody who asks oddly holds it up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest

from fleet.broker.ports import free
from fleet.telemetry.pages import LONGEST, PLAIN, Answer, listening

Ask = Callable[[bytes], Awaitable[bytes]]


def broken(_: str) -> Answer:
    """A page that cannot be made."""
    raise ValueError("odd")


@asynccontextmanager
async def server(port: int) -> AsyncIterator[Ask]:
    """Sends bytes to the server, and returns all it answers."""
    pages = {"/a": lambda accept: Answer(HTTPStatus.OK, PLAIN, accept.encode()), "/b": broken}
    async with listening("127.0.0.1", port, pages):

        async def ask(question: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(question)
            try:
                said = await reader.read()
            except ConnectionResetError:  # for what it did not read
                said = b""
            writer.close()
            return said

        yield ask


@pytest.mark.parametrize(
    ("question", "status", "body"),
    [
        (b"GET /a HTTP/1.1\r\nHost: x\r\nACCEPT: text/x \r\n\r\n", b"200 OK", b"text/x"),
        (b"GET /a?b=c HTTP/1.0\r\n\r\n", b"200 OK", b""),
        (b"HEAD /a HTTP/1.1\r\nAccept: text/x\r\n\r\n", b"200 OK", b""),
        (b"GET /c HTTP/1.1\r\n\r\n", b"404 Not Found", b"/a /b\n"),
        (b"POST /a HTTP/1.1\r\n\r\n", b"405 Method Not Allowed", b"GET or HEAD\n"),
        (b"\r\n\r\n", b"405 Method Not Allowed", b"GET or HEAD\n"),
        (b"GET /b HTTP/1.1\r\n\r\n", b"500 Internal Server Error", b"see the log\n"),
    ],
)
async def test_a_question_is_answered(question: bytes, status: bytes, body: bytes):
    """By path and method, with the length and the end of the connection said."""
    (port,) = free(1)
    async with server(port) as ask:
        head, _, content = (await ask(question)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert content == body
    assert b"Connection: close" in head
    length = len(b"text/x") if question.startswith(b"HEAD") else len(body)
    assert f"Content-Length: {length}".encode() in head


async def test_what_is_no_question_gets_no_answer():
    """Too long, or cut off: the connection ends, and the next one is answered."""
    (port,) = free(1)
    async with server(port) as ask:
        assert await ask(b"GET /a HTTP/1.1\r\nx: " + b"y" * 2 * LONGEST) == b""
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /a")
        writer.close()
        assert (await ask(b"GET /a HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_who_asks_nothing_does_not_hold_up_the_end():
    """A connection that stays silent is cut off when the server ends."""
    (port,) = free(1)
    async with server(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    writer.close()
