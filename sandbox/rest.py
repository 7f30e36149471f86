"""The REST side of the platform: status, prices, positions, and the calls that do something."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from fleet import clock
from sandbox.faults import LONGEST, Faults
from sandbox.player import Quote
from sandbox.venue import Answer, CloseOrder, OpenOrder, TradeOrder, Venue

LARGEST_BODY: Final = 65_536
LONGEST_KEY: Final = 128
# Path, kind of the effect, and the field of its id: each under an Idempotency-Key header.
KEYED: Final = (
    ("/api/trade", "order", "order_id"),
    ("/api/faucet/claim", "claim", "claim_id"),
    ("/api/escrow/release", "release", "release_id"),
    ("/api/jobs", "job", "job_id"),
    ("/api/wallet/deposit", "deposit", "deposit_id"),
)

Body = TypeVar("Body")
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Bad(Exception):  # noqa: N818 - it is an answer, not a failure of ours
    """A request that is answered with a status of its own and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.answer = Answer(status, {"error": sentence})


def guard(key: str) -> Middleware:
    """A middleware that lets only the agent's key and a named agent into /api."""
    expected = f"Bearer {key}".encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/api"):
            given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, expected):
                return respond(Answer(401, {"error": "the key is not valid"}))
            if not request.headers.get("X-Agent-Id"):
                return respond(Answer(401, {"error": "the header X-Agent-Id is missing"}))
        return await handler(request)

    return check


class Api:
    """The handlers; everything that changes the world goes through `_write` and its faults."""

    def __init__(self, venue: Venue, board: Mapping[str, Quote], faults: Faults) -> None:
        self._venue = venue
        self._board = board
        self._faults = faults

    def routes(self) -> list[web.RouteDef]:
        """What is answered where."""
        return [
            web.get("/api/status", self._status),
            web.get("/api/market/prices", self._prices),
            web.get("/api/trade/positions", self._positions),
            web.post("/api/trade/open", self._open),
            web.post("/api/trade/close", self._close),
            *(web.post(path, self._keyed(kind, name)) for path, kind, name in KEYED),
        ]

    async def _status(self, request: web.Request) -> web.StreamResponse:
        agent = request.headers["X-Agent-Id"]
        return respond(
            Answer(200, {"status": "ok", "agent_id": agent, "server_time_ms": clock.now_ms()})
        )

    async def _prices(self, _: web.Request) -> web.StreamResponse:
        ticks = [msgspec.Raw(quote.tick.encode()) for quote in self._board.values()]
        return respond(Answer(200, {"pairs": ticks}))

    async def _positions(self, _: web.Request) -> web.StreamResponse:
        return respond(Answer(200, {"positions": self._venue.positions()}))

    async def _open(self, request: web.Request) -> web.StreamResponse:
        return await self._write(
            request, lambda body: self._venue.open(_read(body, OpenOrder), clock.now_ms())
        )

    async def _close(self, request: web.Request) -> web.StreamResponse:
        return await self._write(
            request, lambda body: self._venue.close(_read(body, CloseOrder), clock.now_ms())
        )

    def _keyed(self, kind: str, id_field: str) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            def act(body: bytes) -> Answer:
                said = _read(body or b"{}", dict[str, Any])
                if kind == "order" and "pair" in said:
                    return self._venue.trade(
                        _read(body, TradeOrder), _key_of(request), clock.now_ms()
                    )
                return self._venue.act(kind, id_field, _key_of(request), said, clock.now_ms())

            return await self._write(request, act)

        return handle

    async def _write(
        self, request: web.Request, act: Callable[[bytes], Answer]
    ) -> web.StreamResponse:
        body = await request.read()
        fault = self._faults.draw()
        await asyncio.sleep(fault.latency)
        if fault.name == "errors":
            return respond(Answer(503, {"error": "the venue is unavailable"}))
        if fault.name == "timeouts":
            await asyncio.sleep(LONGEST)
            return _hang_up(request)
        try:
            answer = act(body)
        except Bad as error:
            answer = error.answer
        return _hang_up(request) if fault.name == "lost_answers" else respond(answer)


def respond(answer: Answer) -> web.Response:
    """An answer as JSON, its money written as exact numbers."""
    body = _encode(answer.body)
    return web.Response(status=answer.status, body=body, content_type="application/json")


def _hang_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _read(body: bytes, kind: type[Body]) -> Body:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Bad(422, str(error)) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Bad(400, f"the body is no JSON: {error}") from error


def _key_of(request: web.Request) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if not 0 < len(key) <= LONGEST_KEY:
        raise Bad(400, f"the header Idempotency-Key must have 1 to {LONGEST_KEY} characters")
    return key
