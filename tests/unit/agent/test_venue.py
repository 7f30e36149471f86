"""The venue's client: every answer is a value, or an error that says what is known."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from agent import risk, wire
from agent.venue import Venue
from agent.wire import VenuePosition
from fleet.core.errors import ApiError, FleetError, NetworkError, NotNowError, RefusedError
from fleet.store.positions import Position

KEY = "pf_live_verysecret"


class Answering:
    """A venue that answers whatever it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.status = 201
        self.body = b'{"position_id":"pos_1"}'
        self.headers: dict[str, str] = {}
        self.hang = False
        self.asked: list[tuple[str, bytes, dict[str, str]]] = []

    async def handle(self, request: web.Request) -> web.Response:
        """Answer as told."""
        self.asked.append((request.path, await request.read(), dict(request.headers)))
        if self.hang:
            await asyncio.sleep(30)
        return web.Response(status=self.status, body=self.body, headers=self.headers)


@pytest.fixture
async def answering() -> AsyncIterator[tuple[Answering, Venue]]:
    """A venue on a free port, and a client of it."""
    told = Answering()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", told.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with Venue(url, "pf_agent_1", KEY, timeout_s=60) as venue:
        yield told, venue
    await runner.cleanup()


@pytest.fixture
def wish(floor: SimpleNamespace) -> Any:
    """An order."""
    return floor.order("BTC/USDT", "long", 1_750_000_000_000, size_usdc=Decimal("49.99"))


async def test_a_request_carries_both_headers_and_exact_money(answering: Any, wish: Any) -> None:
    """Money goes out digit for digit, the key as a bearer token."""
    told, venue = answering
    opened = await venue.open(wish)
    assert (opened.position.position_id, opened.again) == ("pos_1", False)
    _, body, headers = told.asked[0]
    assert b'"size_usdc":49.99' in body
    assert (headers["Authorization"], headers["X-Agent-Id"]) == (f"Bearer {KEY}", "pf_agent_1")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RefusedError),
        (401, RefusedError),
        (403, RefusedError),
        (404, RefusedError),
        (422, RefusedError),
        (303, NetworkError),
        (307, NetworkError),
        (408, ApiError),
        (429, NotNowError),
        (500, ApiError),
        (503, ApiError),
    ],
)
async def test_a_status_says_who_must_act(
    answering: Any, wish: Any, status: int, kind: type[FleetError]
) -> None:
    """Refused, put off, or unknown; the venue's sentence is repeated, our key never."""
    told, venue = answering
    told.status, told.body = status, b'{"error":"because pf_live_other"}'
    told.headers = {"Location": "http://127.0.0.1:1/", "Retry-After": "7"}
    with pytest.raises(kind) as caught:
        await venue.open(wish)
    assert "because" in str(caught.value)
    assert "verysecret" not in repr(caught.value)
    assert getattr(caught.value, "retry_after", 7.0) == 7.0
    assert len(told.asked) == 1, "nothing is tried twice, and no redirect is followed"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b"{}",
        b'{"position_id":""}',
        b'{"position_id":7}',
        b'{"position_id":"pos_1","entry_price":"NaN"}',
        b'{"position_id":"pos_1","entry_price":-1}',
        b'{"position_id":"pos_1","entry_price":1e999999}',
        b'{"position_id":"pos_1","pair":"ETH/USDT"}',
        b'{"position_id":"pos_1"',
        b'{"position_id":"\xff"}',
        b'{"position_id":"\\ud800"}',
        b'{"position_id":' + b"[" * 100_000,
        b'{"position_id":"' + b"x" * (2 << 20) + b'"}',
    ],
)
async def test_an_unreadable_success_is_an_unknown_outcome(
    answering: Any, wish: Any, body: bytes
) -> None:
    """It may well have been carried out: never a success, never a refusal."""
    told, venue = answering
    told.body = body
    with pytest.raises(NetworkError) as caught:
        await venue.open(wish)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("body", [b"{}", b"busy", b'{"error":"conflict"}', b'{"original":{}}'])
async def test_a_409_without_its_original_is_an_unknown_outcome(
    answering: Any, wish: Any, body: bytes
) -> None:
    """Such as: a request with this key is still being worked on."""
    told, venue = answering
    told.status, told.body = 409, body
    with pytest.raises(NetworkError):
        await venue.open(wish)


async def test_closing_says_what_it_gained(answering: Any) -> None:
    """Exactly; a 409 repeats it; 404 is None; another position's answer is none."""
    told, venue = answering
    told.status, told.body = 200, b'{"realised_pnl_usdc":-1.10000000000000000001}'
    assert (await venue.close("pos_1")).realised_pnl_usdc == Decimal("-1.10000000000000000001")
    told.status, told.body = 409, b'{"original":{"realised_pnl_usdc":"2.5","exit_price":3}}'
    assert (await venue.close("pos_1")).exit_price == 3
    told.status = 404
    assert await venue.close("pos_1") is None
    told.status, told.body = 200, b'{"realised_pnl_usdc":1,"position_id":"pos_2"}'
    with pytest.raises(NetworkError):
        await venue.close("pos_1")
    keys = {headers["Idempotency-Key"] for _, _, headers in told.asked}
    assert len(keys) == 1


async def test_no_answer_is_a_network_error(answering: Any, wish: Any) -> None:
    """A venue that hangs, one that hangs up, one that is not there, an address that is none."""
    told, venue = answering
    told.hang = True
    async with Venue(venue._url, "a", KEY, timeout_s=0.2) as hasty:
        with pytest.raises(NetworkError, match="TimeoutError"):
            await hasty.open(wish)
    hangs_up = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        ports = [hangs_up.sockets[0].getsockname()[1], closed.getsockname()[1]]
    for url in (*(f"http://127.0.0.1:{port}" for port in ports), "http://\x00"):
        async with Venue(url, "a", KEY, timeout_s=60) as lost:
            with pytest.raises(NetworkError) as caught:
                await lost.open(wish)
            assert caught.value.__cause__ is None
            assert "verysecret" not in str(caught.value)
    hangs_up.close()
    await hangs_up.wait_closed()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("12", 12.0),
        ("-5", 0.25),
        ("1e9", 300.0),
        ("inf", 300.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 0.25),
    ],
)
def test_retry_after_is_bounded(text: str | None, seconds: float | None) -> None:
    """A number or a date, never less than a quarter second, never more than five minutes."""
    now = datetime(2026, 10, 21, 7, 28, tzinfo=UTC).timestamp()
    assert wire.retry_after(text, now) == seconds


@given(st.text(max_size=40))
def test_no_retry_after_is_too_odd(text: str) -> None:
    """Whatever stands in the header."""
    seconds = wire.retry_after(text, 1_750_000_000.0)
    assert seconds is None or 0.25 <= seconds <= 300


@given(st.binary(max_size=200))
def test_no_answer_is_too_odd(body: bytes) -> None:
    """Any bytes are a position or a NetworkError."""
    try:
        assert wire.read(body, VenuePosition, "it").position_id
    except NetworkError as error:
        assert str(error)  # noqa: PT017 - one of two is what is claimed


def test_a_position_is_found_by_its_key(floor: SimpleNamespace) -> None:
    """By pair and direction only where the venue tells no keys, and not if it is older."""
    wish = floor.order("BTC/USDT", "long", 1)
    place = Position(wish.key, "a", wish.pair, "long", wish.size_usdc, wish.leverage, 1)
    place = msgspec.structs.replace(place, opened_ms=10**6)
    mine = VenuePosition("p1", idempotency_key=wish.key)
    other = VenuePosition("p2", "BTC/USDT", "long", idempotency_key="else")
    assert risk.find([other, mine], place) is mine
    assert risk.find([other], place) is None
    plain = VenuePosition("p3", "BTC/USDT", "long", opened_at_ms=10**6 - 30_000)
    assert risk.find([VenuePosition("p4", "BTC/USDT", "short"), plain], place) is plain
    later = msgspec.structs.replace(place, opened_ms=2 * 10**6)
    assert risk.find([plain], later) is None
