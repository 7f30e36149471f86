"""What tests and the demo ask the stand-in itself, under /sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aiohttp import web

from sandbox.ledger import Ledger
from sandbox.rest import respond
from sandbox.venue import Answer


class Admin:
    """Ledger, summary and start; no key is asked for, so it belongs on loopback only."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        summary: Callable[[], Mapping[str, Any]],
        begin: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._summary = summary
        self._begin = begin

    def routes(self) -> list[web.RouteDef]:
        """What is answered where."""
        return [
            web.get("/sandbox/summary", self._summarise),
            web.get("/sandbox/ledger/events", self._lines(self._ledger.event_lines)),
            web.get("/sandbox/ledger/effects", self._lines(self._ledger.effect_lines)),
            web.get("/sandbox/ledger/duplicates", self._lines(self._ledger.duplicate_lines)),
            web.post("/sandbox/start", self._start),
        ]

    async def _summarise(self, _: web.Request) -> web.StreamResponse:
        return respond(Answer(200, dict(self._summary())))

    async def _start(self, request: web.Request) -> web.StreamResponse:
        self._begin()
        return await self._summarise(request)

    def _lines(self, pieces: Callable[[], Iterator[bytes]]) -> Callable[[web.Request], Any]:
        async def stream(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            await response.prepare(request)
            for piece in pieces():
                await response.write(piece)
                await asyncio.sleep(0)  # a long ledger must not hold up the stream
            await response.write_eof()
            return response

        return stream
