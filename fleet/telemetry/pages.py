"""A few pages over HTTP, out of the loop that does the work.

Not by aiohttp's server, which would take 13 MB in each replica that needs it for nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Final, NamedTuple, TypeAlias

import structlog

log = structlog.get_logger("fleet.health")

PATIENCE_S: Final = 5.0
"""How long who asks may take over the question, and over the answer."""
LONGEST: Final = 16_384
"""Bytes of a question, headers included."""
PLAIN: Final = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """A page as it is sent."""

    status: HTTPStatus
    kind: str
    """Its Content-Type."""
    body: bytes


Page: TypeAlias = Callable[[str], Answer]
"""Makes the answer for who would accept this, in the words of the header `Accept`."""


@asynccontextmanager
async def listening(host: str, port: int, pages: Mapping[str, Page]) -> AsyncIterator[None]:
    """Answer GET and HEAD for these paths while inside, a connection for each.

    Raises OSError where the address is not to be had.
    """
    answering: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_answer(reader, writer, pages))
        answering.add(task)
        task.add_done_callback(answering.discard)

    server = await asyncio.start_server(begin, host, port, limit=LONGEST)
    try:
        yield
    finally:
        server.close()
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pages: Mapping[str, Page]
) -> None:
    # Who is gone, slow or speaks something else gets no answer; nobody here has to know.
    try:
        with suppress(OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
            async with asyncio.timeout(PATIENCE_S):
                question = await reader.readuntil(b"\r\n\r\n")
                writer.write(_said(question.decode("latin-1"), pages))
                await writer.drain()
    finally:
        writer.close()


def _said(question: str, pages: Mapping[str, Page]) -> bytes:
    """The whole answer to a whole question."""
    first, *lines = question.split("\r\n")
    method, _, rest = first.partition(" ")
    page = pages.get(rest.partition(" ")[0].partition("?")[0])
    if method not in {"GET", "HEAD"}:
        answer = Answer(HTTPStatus.METHOD_NOT_ALLOWED, PLAIN, b"GET or HEAD\n")
    elif page is None:
        answer = Answer(HTTPStatus.NOT_FOUND, PLAIN, b" ".join(map(str.encode, pages)) + b"\n")
    else:
        answer = _made(page, lines)
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.kind}\r\nContent-Length: {len(answer.body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if method == "HEAD" else answer.body)


def _made(page: Page, lines: list[str]) -> Answer:
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    try:
        return page(headers.get("accept", ""))
    except Exception:
        log.exception("a page cannot be made")  # ours to mend; the work goes on
        return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, PLAIN, b"see the log\n")
