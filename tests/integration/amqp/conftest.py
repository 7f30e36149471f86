"""A line to the broker that fails in the ways that lines do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

import pytest


class Proxy:
    """A line to the broker that can be cut, or go dead without a word."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen; `url` is the address to use in place of the broker's."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        user = self._parts.netloc.rpartition("@")[0]
        self.url = f"amqp://{user}@127.0.0.1:{port}{self._parts.path}"

    def freeze(self) -> None:
        """Pass nothing on any more; the sockets stay open."""
        self._flowing.clear()

    def cut(self) -> None:
        """Drop what is connected; who comes now is served again."""
        self._flowing.set()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def stop(self) -> None:
        """Drop everything."""
        self.cut()
        if self._server:
            self._server.close()
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(
            self._parts.hostname, self._parts.port
        )
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while octets := await reader.read(65536):
                await self._flowing.wait()
                writer.write(octets)
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def proxy(amqp_url: str) -> AsyncGenerator[Proxy, None]:
    """A proxy before this test's virtual host."""
    line = Proxy(amqp_url)
    await line.start()
    yield line
    await line.stop()
