"""PostgreSQL as nothing else can stand in for it: two writers at once, and connections that end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Self
from urllib.parse import urlsplit

import pytest

from fleet.store import Store
from fleet.store.postgres import PostgresEngine


@pytest.fixture
def store_url(postgres_url: str) -> str:
    """PostgreSQL, whatever kind this run is over."""
    return postgres_url


@pytest.fixture
def engine(postgres_url: str, store: Store) -> Iterator[PostgresEngine]:
    """A second writer of the same store, whose transactions the test ends when it likes."""
    assert store is not None
    opened = PostgresEngine(postgres_url, writes=True)
    opened.open()
    yield opened
    opened.rollback()
    opened.close()


class Line:
    """A line to the server that can be cut at a COMMIT, before it arrives or before its answer."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._pumps: set[asyncio.Task[None]] = set()
        self.url = ""
        self.cut = ""
        """`before` or `after` the next COMMIT arrives; `silent`: nothing arrives any more."""

    async def __aenter__(self) -> Self:
        """Listen."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        login = self._parts.netloc.rpartition("@")[0]
        port = self._listener.sockets[0].getsockname()[1]
        self.url = self._parts._replace(netloc=f"{login}@127.0.0.1:{port}").geturl()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cut what is left."""
        self._listener.close()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        pumps = (self._ask(reader, server[1]), self._answer(server[0], writer))
        tasks = [asyncio.ensure_future(pump) for pump in pumps]
        self._pumps.update(tasks)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            writer.close()
            server[1].close()

    async def _ask(self, client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while data := await client.read(65_536):
            cut = self.cut if b"COMMIT" in data or self.cut == "silent" else ""
            if cut == "silent":
                continue
            if cut == "before":
                self.cut = ""
                return
            if cut == "after":
                self.cut = "answer"
            server.write(data)

    async def _answer(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await server.read(65_536):
            if self.cut == "answer":
                self.cut = ""
                return
            client.write(data)


@pytest.fixture
async def line(postgres_url: str) -> AsyncIterator[Line]:
    """A line to an empty schema."""
    async with Line(postgres_url) as made:
        yield made
