"""The venue's REST API: every answer is a checked value, or an error that says what is known."""

from __future__ import annotations

import asyncio
import importlib
import ssl
import time
from collections.abc import Mapping
from decimal import Decimal
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, Self, TypeAlias

import msgspec

from agent import wire
from agent.keys import close_key
from agent.risk import is_strange
from agent.wire import ClosedPosition, OrderTaken, VenuePosition, VenuePositions
from fleet.core.errors import ApiError, NetworkError, NotNowError, RefusedError
from fleet.core.payloads import OrderRequested

if TYPE_CHECKING:
    import aiohttp

LARGEST_ANSWER: Final = 1 << 20
CHUNK: Final = 1 << 16
OPEN, CLOSE, POSITIONS = "/api/trade/open", "/api/trade/close", "/api/trade/positions"
TRADE: Final = "/api/trade"

Endpoint: TypeAlias = Literal["open", "trade"]

_encode = msgspec.json.Encoder(decimal_format="number").encode


class Opened(NamedTuple):
    """A position under our key; `again`: the key was used before, and this is its result.

    `position` is None where the venue told nothing but an order's id.
    """

    position: VenuePosition | None
    again: bool


class VenueApi(Protocol):
    """What trades: the platform, or paper."""

    async def positions(self) -> tuple[VenuePosition, ...]:
        """All positions that are open now."""
        ...

    async def open(self, order: OrderRequested) -> Opened:
        """Open a position under the order's key, or what was opened under that key before."""
        ...

    async def close(
        self, position_id: str, order: OrderRequested | None = None
    ) -> ClosedPosition | None:
        """Close a position, once: what that gained, now or before. None: no such position.

        `order` is what it makes room for; only paper needs to know.
        """
        ...


class Reply(NamedTuple):
    """A status that is neither a refusal nor a failure, and its body."""

    status: int
    body: bytes


class Venue:
    """One session with the platform at `url`, as `agent`, with its `key`.

    Every call raises NetworkError where there was no answer within `timeout_s` seconds, or one
    that cannot be read or redirects, ApiError for a server error (after either of them nobody
    knows whether a POST was carried out), NotNowError where it was put off, RefusedError where it
    was refused.

    Orders go to `endpoint`: "open" has the key in the body and answers with the position, "trade"
    has it in a header and answers with an order's id.
    """

    def __init__(
        self,
        url: str,
        agent: str,
        key: str,
        *,
        timeout_s: float = 8.0,
        endpoint: Endpoint = "open",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        self._tls = tls
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._headers = {
            "Authorization": f"Bearer {key}",
            "X-Agent-Id": agent,
            "Content-Type": "application/json",
            # A packed answer could unfold far beyond the bound on its size.
            "Accept-Encoding": "identity",
        }
        self._is_open = False
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._is_open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_open = False
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def positions(self) -> tuple[VenuePosition, ...]:
        """All positions that are open at the venue now."""
        reply = await self._call("GET", POSITIONS)
        return wire.read(reply.body, VenuePositions, POSITIONS).positions

    async def open(self, order: OrderRequested) -> Opened:
        """Open a position under the order's key, or what was opened under that key before.

        What was opened before may be for another pair, direction or size.
        """
        wish: dict[str, str | Decimal] = {
            "pair": order.pair,
            "direction": order.direction,
            "size_usdc": order.size_usdc,
            "leverage": order.leverage,
        }
        if self._endpoint == "trade":
            return await self._trade(order, wish)
        reply = await self._call("POST", OPEN, {**wish, "idempotency_key": order.key})
        again = reply.status == HTTPStatus.CONFLICT
        body = wire.original(reply.body, OPEN) if again else reply.body
        position = wire.read(body, VenuePosition, OPEN)
        if not again and is_strange(position, order):
            raise NetworkError(f"the answer to {OPEN} is about another order")
        return Opened(position, again)

    async def _trade(self, order: OrderRequested, wish: Mapping[str, str | Decimal]) -> Opened:
        reply = await self._call("POST", TRADE, wish, {"Idempotency-Key": order.key})
        again = reply.status == HTTPStatus.CONFLICT
        wire.read(wire.original(reply.body, TRADE) if again else reply.body, OrderTaken, TRADE)
        return Opened(None, again)

    async def close(
        self,
        position_id: str,
        order: OrderRequested | None = None,  # noqa: ARG002 - the venue has a price of its own
    ) -> ClosedPosition | None:
        """Close a position, once: what that gained, now or before. None: no such position."""
        request = {"position_id": position_id}
        keyed = {"Idempotency-Key": close_key(position_id)}
        reply = await self._call("POST", CLOSE, request, keyed, answers=_CLOSE_ANSWERS)
        if reply.status == HTTPStatus.NOT_FOUND:
            return None
        again = reply.status == HTTPStatus.CONFLICT
        body = wire.original(reply.body, CLOSE) if again else reply.body
        closed = wire.read(body, ClosedPosition, CLOSE)
        if closed.position_id not in (None, position_id):
            raise NetworkError(f"the answer to {CLOSE} is about another position")
        return closed

    async def act(self, path: str, body: Mapping[str, Any], key: str) -> bytes:
        """The answer to a POST under an Idempotency-Key: of now, or of the first time (409)."""
        reply = await self._call("POST", path, body, {"Idempotency-Key": key})
        if reply.status == HTTPStatus.CONFLICT:
            return wire.original(reply.body, path)
        return reply.body

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        answers: frozenset[int] = frozenset({HTTPStatus.CONFLICT}),
    ) -> Reply:
        """The answer where it is a success or one of `answers`."""
        session = await self._reached()
        from aiohttp import ClientError  # noqa: PLC0415 - it is there by now

        try:
            async with session.request(
                method,
                self._url + path,
                data=None if body is None else _encode(body),
                headers=headers,
                allow_redirects=False,
            ) as response:
                said = await _bounded(response)
        # Neither the error's text nor its cause: a header with the key hangs on some of them.
        except (ClientError, TimeoutError, OSError, ValueError) as error:
            raise NetworkError(f"no answer to {path}: {type(error).__name__}") from None
        if response.ok and response.status < HTTPStatus.MULTIPLE_CHOICES:
            return Reply(response.status, said)
        if response.status in answers:
            return Reply(response.status, said)
        raise _refusal(path, response.status, said, response.headers.get("Retry-After"))

    async def _reached(self) -> aiohttp.ClientSession:
        """The session, made with the first call: a worker that makes none has 11 MB less."""
        if self._session is None:
            # In a thread, for it takes long: what is in hand goes on meanwhile.
            library = await asyncio.to_thread(importlib.import_module, "aiohttp")
            if self._is_open and self._session is None:
                self._session = library.ClientSession(
                    timeout=library.ClientTimeout(total=self._timeout_s),
                    headers=self._headers,
                    cookie_jar=library.DummyCookieJar(),
                    auto_decompress=False,
                    connector=library.TCPConnector(ssl=self._tls or True),
                )
        if self._session is None:
            raise NetworkError("the session with the venue is not open")
        return self._session


async def listed(venue: VenueApi) -> tuple[VenuePosition, ...]:
    """What is open at the venue. A question that is refused leaves the outcome unknown."""
    try:
        return await venue.positions()
    except RefusedError as error:
        raise ApiError(str(error)) from None


_CLOSE_ANSWERS: Final = frozenset({HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND})


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_chunked(CHUNK):
        parts.append(part)
        size += len(part)
        if size > LARGEST_ANSWER:
            response.close()
            raise ValueError("too large")
    return b"".join(parts)


def _refusal(path: str, status: int, body: bytes, wait: str | None) -> Exception:
    """The error for a status that is no success."""
    text = f"{path} answered {status}{_reason(body)}"
    seconds = wire.retry_after(wait, time.time())
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return NotNowError(text, retry_after=seconds)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        return ApiError(text, retry_after=seconds)
    if status < HTTPStatus.BAD_REQUEST:
        # "See other" may mean that it was carried out.
        text = f"{text}, and no redirect is followed; correct PF_API_URL"
        return NetworkError(text, retry_after=seconds)
    return RefusedError(text)


def _reason(body: bytes) -> str:
    """What the venue says about it, for a person; "" where that cannot be read."""
    try:
        said: Any = msgspec.json.decode(body[:4096])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""
    error = said.get("error") if isinstance(said, dict) else None
    return f": {error[:200]}" if isinstance(error, str) else ""
