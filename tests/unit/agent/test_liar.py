"""A venue that answers with anything: never a second order, never a traceback, and the truth wins.

In front of the real stand-in stands a liar. Whether it carries a request out or not, it answers
with bytes of its own; what it lies about is the test's choice. The stand-in has no idempotency, so
an order that is sent twice is two positions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import aiohttp
import msgspec
import pytest

from fleet.core.decision import Ack, Decision, Fail, Postpone, Retry
from fleet.core.events import Event
from fleet.core.payloads import CloseRequested
from fleet.store import Store, equity

BTC, ETH = "BTC/USDT", "ETH/USDT"
OPEN, CLOSE, POSITIONS = "/api/trade/open", "/api/trade/close", "/api/trade/positions"
PASSED = ("Authorization", "X-Agent-Id", "Content-Type", "Idempotency-Key")
MEGABYTE = b"x" * (1 << 20)
QUIET_MS = 61_000


def answer(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    """A whole answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
    return head.encode() + body


SELF = "Location: /api/trade/open\r\n"
LIES = {
    "garbage": b"\x00\xff\xfe garbage\r\n\r\n",
    "silence": b"",
    "half a body": b'HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n{"position_id":"pos_',
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"X-More: y\r\n" * 50_000,
    "a huge body": b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n",
    "packed": answer(b"\x1f\x8b\x08\x00garbage", more="Content-Encoding: gzip\r\n"),
    "nothing": answer(b"", "204 No Content"),
    "not JSON": answer(b"<html>maintenance</html>"),
    "an error inside": answer(b'{"error":"insufficient funds"}'),
    "another shape": answer(b'[{"position_id":"pos_1"}]'),
    "deep": answer(b'{"position_id":' + b"[" * 50_000),
    "NaN": answer(b'{"position_id":"pos_1","entry_price":NaN,"realised_pnl_usdc":NaN}'),
    "NaN in text": answer(b'{"position_id":"p","entry_price":"NaN","realised_pnl_usdc":"NaN"}'),
    "too much money": answer(b'{"position_id":"p","entry_price":1e99,"realised_pnl_usdc":-1e99}'),
    "another pair": answer(b'{"position_id":"p","pair":"ETH/USDT","direction":"long"}', "201 OK"),
    "an empty id": answer(b'{"position_id":"","realised_pnl_usdc":"one"}'),
    "see other": answer(b"", "303 See Other", SELF),
    "moved": answer(b"", "307 Temporary Redirect", SELF),
    "no such status": answer(b"{}", "799 Whatever"),
    "a conflict of nothing": answer(b'{"original":null}', "409 Conflict"),
    "a conflict of another": answer(b'{"original":{"position_id":7}}', "409 Conflict"),
    "an error that is huge": b"HTTP/1.1 500 No\r\nContent-Length: 104857600\r\n\r\n",
}


class Liar:
    """Passes requests on to the truth, or answers them with `lies` by path.

    `is_done`: what it lies about is carried out first. `asked` counts requests by path.
    """

    def __init__(self, truth: str) -> None:
        self.lies: dict[str, bytes] = {}
        self.is_done = True
        self.asked: list[str] = []
        self._truth = truth
        self._session = aiohttp.ClientSession()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, and the end of its connection."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            method, path, headers, body = await _request(reader)
            self.asked.append(path)
            lie = self.lies.get(path)
            told = b""
            if lie is None or self.is_done:
                told = await self._pass_on(method, path, headers, body)
            writer.write(told if lie is None else lie)
            if lie is not None and b"104857600" in lie:
                for _ in range(100):
                    writer.write(MEGABYTE)
                    await writer.drain()
            await writer.drain()
        with suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()

    async def _pass_on(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        kept = {name: headers[name.lower()] for name in PASSED if name.lower() in headers}
        async with self._session.request(
            method, self._truth + path, headers=kept, data=body
        ) as reply:
            return answer(await reply.read(), f"{reply.status} Told")

    async def close(self) -> None:
        """End the session with the truth."""
        await self._session.close()


async def _request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return method, path, headers, body


Start = Callable[..., Awaitable[tuple[Any, Liar]]]


@pytest.fixture
async def lied_to(office: Any) -> AsyncIterator[Start]:
    """An office whose desk talks to a liar."""
    liars: list[Liar] = []
    servers: list[asyncio.Server] = []

    async def start(**agent: Any) -> tuple[Any, Liar]:
        at = await office(idempotency=False, agent=agent)
        liar = Liar(at.sandbox.url)
        server = await asyncio.start_server(liar.handle, "127.0.0.1", 0)
        at.desk.venue._url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        liars.append(liar)
        servers.append(server)
        return at, liar

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()
    for liar in liars:
        await liar.close()


def is_sound(decision: Decision) -> bool:
    """Whether it says in a sentence what went wrong, and it is no bug of ours."""
    if not isinstance(decision, Fail | Retry):
        return False
    failure = decision.failure
    is_told = 10 < len(failure.message) < 500 and "Traceback" not in failure.message
    return is_told and failure.error_class in {"network", "api", "data"}


@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize("lie", LIES)
async def test_no_answer_to_an_order_makes_two_of_it(
    lied_to: Start, lie: str, is_done: bool
) -> None:
    """Lied to once: the outcome is not known, its place is taken; in the end there is one."""
    at, liar = await lied_to()
    liar.lies, liar.is_done = {OPEN: LIES[lie]}, is_done
    event = at.wish(BTC, "long")
    assert is_sound(await at.run(event))
    assert (await at.effect(event)).state == "unknown"
    assert await at.book() == {BTC: ("long", "reserved")}
    assert liar.asked.count(OPEN) == 1
    liar.lies = {}
    assert await at.run(event, attempt=2) == Ack()
    assert at.done() == {"open": 1}
    assert await at.book() == {BTC: ("long", "open")}
    (made,) = await at.desk.venue.positions()
    assert (await at.place(event)).venue_id == made.position_id


@pytest.mark.parametrize("lie", ["garbage", "half a body", "an error inside", "see other", "NaN"])
async def test_a_venue_that_lies_to_the_end_opens_nothing_unseen(lied_to: Start, lie: str) -> None:
    """Four attempts without a true answer: the last one finds what was done, or nothing."""
    at, liar = await lied_to(breaker_failures=99)
    liar.lies, liar.is_done = {OPEN: LIES[lie]}, False
    event = at.wish(BTC, "long")
    for attempt in (1, 2, 3, 4):
        assert is_sound(await at.run(event, attempt=attempt, at=at.now))
    assert liar.asked.count(OPEN) == 4
    end = await at.run(event, attempt=5, at=at.now + QUIET_MS + 5_000)
    assert isinstance(end, Fail)
    assert is_sound(end)
    assert (await at.effect(event)).state == "failed"
    assert (await at.book(), at.done()) == ({}, {})
    other = at.wish(ETH, "long")
    liar.is_done = True
    await at.run(other, at=at.now)
    assert await at.run(other, attempt=2, at=at.now) == Ack()
    assert at.done() == {"open": 1}


@pytest.mark.parametrize("lie", ["garbage", "half a body", "NaN", "see other", "a huge body"])
async def test_while_its_list_is_not_to_be_read_nothing_is_sent(lied_to: Start, lie: str) -> None:
    """The outcome is not known and the venue cannot be asked: it is not sent again, but asked."""
    at, liar = await lied_to()
    liar.lies = {OPEN: LIES[lie], POSITIONS: LIES[lie]}
    event = at.wish(BTC, "long")
    for attempt in (1, 2, 3):
        assert is_sound(await at.run(event, attempt=attempt, at=at.now))
    assert liar.asked.count(OPEN) == 1
    assert at.done() == {"open": 1}
    liar.lies = {}
    assert await at.run(event, attempt=4, at=at.now) == Ack()
    assert at.done() == {"open": 1}


async def test_an_order_is_not_parked_because_the_venue_cannot_be_asked(lied_to: Start) -> None:
    """The last attempt's answer is lost and an outage follows: asked until it is over, then known.

    Parked, it would keep its place in the book until a person came.
    """
    at, liar = await lied_to()
    liar.lies = {OPEN: LIES["garbage"], POSITIONS: LIES["garbage"]}
    event = at.wish(BTC, "long")
    assert isinstance(await at.run(event, attempt=4, at=at.now), Retry)
    for minutes in (2, 30, 600):
        assert isinstance(await at.run(event, attempt=5, at=at.now + minutes * QUIET_MS), Postpone)
        assert (await at.effect(event)).state == "unknown"
    liar.lies = {}
    assert await at.run(event, attempt=5, at=at.now + 601 * QUIET_MS) == Ack()
    assert await at.book() == {BTC: ("long", "open")}
    assert (liar.asked.count(OPEN), at.done()) == (1, {"open": 1})


@pytest.mark.parametrize("lie", LIES)
async def test_no_answer_to_a_closing_makes_two_of_it(lied_to: Start, lie: str) -> None:
    """Nothing is booked until the venue says what it gained; then once."""
    at, liar = await lied_to()
    event = at.wish(BTC, "long")
    await at.run(event)
    wish = CloseRequested("close", event.payload["key"], BTC)
    closing: Event = at.event(wish, "order.close_requested")
    liar.lies = {CLOSE: LIES[lie]}
    assert is_sound(await at.run(closing))
    assert await at.book() == {BTC: ("long", "closing")}
    liar.lies = {}
    assert await at.run(closing, attempt=2) == Ack()
    assert at.done() == {"open": 1, "close": 1}
    assert (await at.place(event)).pnl == Decimal(0)


@pytest.mark.parametrize("gained", [b"1e14", b"-1e14"])
async def test_a_gain_that_cannot_be_blinds_no_drawdown(
    lied_to: Start, store: Store, gained: bytes
) -> None:
    """Over tenfold on 150 USDC: it is over, what it gained is not known, and the venue is asked."""
    at, liar = await lied_to()
    event = at.wish(BTC, "long")
    await at.run(event)
    wish = CloseRequested("close", event.payload["key"], BTC)
    liar.lies = {CLOSE: answer(b'{"realised_pnl_usdc":' + gained + b"}")}
    assert await at.run(at.event(wish, "order.close_requested")) == Ack()
    place = await at.place(event)
    assert (place.state, place.pnl, place.presumed) == ("closed", None, Decimal(50))
    again = msgspec.structs.replace(wish, key="again")
    assert await at.run(at.event(again, "order.close_requested")) == Ack()
    known = await store.read(lambda tx: equity.get(tx, place.agent))
    assert (known.realised, known.peak) == (0, 0)
    liar.lies = {}
    last = msgspec.structs.replace(wish, key="last")
    assert await at.run(at.event(last, "order.close_requested")) == Ack()
    place = await at.place(event)
    assert (place.pnl, place.presumed) == (Decimal(0), None)


async def test_the_id_of_another_order_is_believed_of_neither(lied_to: Start) -> None:
    """A long on BTC under the id of the one on ETH: a person looks, and both stay what they are."""
    at, liar = await lied_to()
    first, event = at.wish(ETH, "long"), at.wish(BTC, "long")
    await at.run(first)
    theirs = (await at.place(first)).venue_id
    body = f'{{"position_id":"{theirs}","pair":"{BTC}","direction":"long"}}'
    liar.lies = {OPEN: answer(body.encode(), "201 Created")}
    end = await at.run(event)
    assert isinstance(end, Fail)
    assert "another order" in end.failure.message
    assert (await at.effect(event)).state == "unknown"
    assert await at.book() == {ETH: ("long", "open"), BTC: ("long", "reserved")}
    liar.lies = {}
    assert await at.run(event, replay=1) == Ack()
    assert await at.book() == {ETH: ("long", "open"), BTC: ("long", "open")}
    assert len({(await at.place(one)).venue_id for one in (first, event)}) == 2
    assert at.done() == {"open": 2}
