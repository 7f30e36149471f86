"""Synthetic ticks: only where the stream had none, never older, never twice."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.events import read_event, write_event
from publisher.sources.prices import Newest, PriceFill, Quote, read_quotes, synthetic
from sandbox.server import Sandbox
from sandbox.settings import SandboxSettings

NOW = 1_800_000_000_000
EVERY_MS = 60_000


def tick(pair: str, at_ms: int, price: Any = 1) -> dict[str, Any]:
    """The payload of a tick of the stream."""
    return {"pair": pair, "price": price, "timestamp_ms": at_ms}


def test_only_what_is_newer_than_the_stream_is_filled_in():
    """Of the same moment or older: the stream has told; newer or never told: a gap."""
    newest = Newest()
    newest.note(tick("A", NOW - 5), NOW, NOW)
    newest.note(tick("A", NOW - 9), NOW, NOW)
    quotes = [
        Quote("A", Decimal(1), NOW - 5),
        Quote("A", Decimal(1), NOW - 7),
        Quote("A", Decimal(2), NOW - 4),
        Quote("B", Decimal(3), NOW - 100),
        Quote("C", Decimal(3), NOW + 10_000_000),
    ]
    found = newest.missing(quotes, NOW, EVERY_MS)
    assert [(one.pair, one.timestamp_ms) for one in found] == [("A", NOW - 4), ("B", NOW - 100)]


def test_a_quote_without_a_time_is_one_of_this_second():
    """It is a gap only where the stream was silent about the pair for a whole period."""
    newest = Newest()
    newest.note(tick("A", NOW - EVERY_MS + 1), NOW, NOW)
    newest.note(tick("B", NOW - EVERY_MS), NOW, NOW)
    quotes = [Quote("A", Decimal(1)), Quote("B", Decimal(1))]
    found = newest.missing(quotes, NOW + 7, EVERY_MS + 7)
    assert [(one.pair, one.timestamp_ms) for one in found] == [("B", NOW)]


@given(st.lists(st.integers(1, 100)), st.integers(1, 100))
def test_never_older_than_the_newest(times: list[int], quoted: int):
    """Whatever came in whatever order, a synthetic tick is newer than all of it."""
    newest = Newest()
    for at in times:
        newest.note(tick("A", NOW + at), NOW, NOW)
    found = newest.missing([Quote("A", Decimal(1), NOW + quoted)], NOW, EVERY_MS)
    assert bool(found) == (quoted > max(times, default=0))


USELESS = {
    "zero": {"price": 0},
    "negative": {"price": -1},
    "no price": {"price": None},
    "a list": {"price": []},
    "not a number": {"price": "NaN"},
    "beyond all bounds": {"price": Decimal(10) ** 15},
    "a bad field": {"volume": "much"},
    "no time": {"timestamp_ms": None},
    "no pair": {"pair": ""},
    "a long pair": {"pair": "A" * 65},
}


@pytest.mark.parametrize("name", USELESS)
def test_a_tick_that_no_worker_would_count_is_doubted(name: str):
    """It asks for the fallback source, and hides no gap."""
    newest = Newest()
    newest.note(tick("A", NOW) | USELESS[name], NOW, NOW)
    assert newest.doubted
    assert newest.missing([Quote("A", Decimal(1), NOW)], NOW, EVERY_MS)


def test_a_stream_that_lags_is_doubted():
    """Its ticks are expired by workers: the platform's prices stand in for them."""
    newest = Newest()
    newest.note(tick("A", NOW - 30_001), NOW - 30_001, NOW)
    assert newest.doubted
    assert newest.missing([Quote("A", Decimal(1), NOW - 30_001)], NOW, EVERY_MS)


def test_a_good_tick_is_not_doubted():
    """As the bridge reads it: whole numbers, Decimals, fields that nobody documents."""
    newest = Newest()
    newest.note({**tick("A", NOW, Decimal("1.5")), "qty": 3, "volume": Decimal(7)}, NOW, NOW)
    assert not newest.doubted
    assert not newest.missing([Quote("A", Decimal(1), NOW)], NOW, EVERY_MS)


def test_a_tick_from_the_future_hides_no_gap():
    """No strategy counts it, so the fallback source is asked, and its price is one."""
    newest = Newest()
    newest.note(tick("A", NOW + 10**9), NOW, NOW)
    assert newest.doubted
    assert newest.missing([Quote("A", Decimal(1), NOW)], NOW, EVERY_MS)


def test_a_synthetic_tick_says_so_and_is_the_same_each_time():
    """Two bridges that ask in the same moment make one event."""
    event = synthetic(Quote("A", Decimal("1.50"), NOW), "pf_agent_a")
    assert event == synthetic(Quote("A", Decimal("1.50"), NOW), "pf_agent_a")
    read = read_event(write_event(event), NOW)
    assert read.payload["synthetic"] is True
    assert (read.ts, read.payload["timestamp_ms"]) == (NOW, NOW)
    assert synthetic(Quote("B", Decimal(1), NOW), "pf_agent_a").event_id != event.event_id


def test_what_is_no_quote_is_left_out():
    """One bad entry does not cost the others."""
    body = (
        b'{"pairs":[{"pair":"A","price":1.5,"timestamp_ms":5,"more":1},{"pair":"","price":1},'
        b'{"pair":"B","price":0},{"pair":"C","price":"NaN"},{"pair":"D"},7,{"pair":"F","price":1e20},{"pair":"E","price":2}]}'
    )
    assert read_quotes(body) == [Quote("A", Decimal("1.5"), 5), Quote("E", Decimal(2))]
    with pytest.raises(ValueError, match="pairs"):
        read_quotes(b'{"error":"no"}')
    with pytest.raises(ValueError, match="deep"):
        read_quotes(b'{"pairs":[' + b"[" * 100_000)


class Paper:
    """Takes what a bridge publishes."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.came = asyncio.Event()

    async def wanted(self, _: str) -> bool:
        """Somebody wants prices."""
        return True

    async def publish(self, event: Any, headers: Any) -> None:
        """Keep it."""
        assert headers == {"x-synthetic": True}
        self.events.append(event)
        self.came.set()


async def test_a_quote_that_stands_still_is_filled_in_once():
    """However often it is asked for; a newer one is filled in again."""
    paper = Paper()
    settings = SandboxSettings(port=0, speed="max", events=60, script_every=0)
    async with Sandbox(settings) as platform, aiohttp.ClientSession() as session:
        await platform._playing
        fill = PriceFill(
            paper,  # type: ignore[arg-type]  # a paper
            Newest(),
            url=platform.url,
            agent="pf_agent_sandbox",
            key="pf_live_sandbox",
            every_s=3600,
            now_ms=lambda: NOW,
        )
        session.headers.update(fill._headers)
        for _ in range(3):
            await fill._fill(session)
        board = platform._emitter.board
        assert sorted(event.payload["pair"] for event in paper.events) == sorted(board)
        pair = paper.events[0].payload["pair"]
        newer = re.sub(r'"timestamp_ms":\d+', f'"timestamp_ms":{NOW}', board[pair].tick)
        board[pair] = board[pair]._replace(tick=newer)
        await fill._fill(session)
    assert [event.payload["pair"] for event in paper.events[len(board) :]] == [pair]


@pytest.mark.parametrize("cause", ["gap", "doubt"])
async def test_a_gap_or_a_bad_tick_asks_at_once(cause: str, monkeypatch: pytest.MonkeyPatch):
    """Long before the next look is due: the platform's own prices, for what the stream lacked."""
    monkeypatch.setattr("publisher.sources.prices.APART_S", 0.5)
    paper, newest = Paper(), Newest()
    async with Sandbox(SandboxSettings(port=0, speed="max", events=60, script_every=0)) as platform:
        await platform._playing
        fill = PriceFill(
            paper,  # type: ignore[arg-type]  # a paper
            newest,
            url=platform.url,
            agent="pf_agent_sandbox",
            key="pf_live_sandbox",
            every_s=3600,
        )
        filling = asyncio.create_task(fill.run())
        try:
            if cause == "gap":
                fill.gap()
            else:
                newest.note(tick("A", NOW, "broken"), NOW, NOW)
            await asyncio.wait_for(paper.came.wait(), 60)
        finally:
            filling.cancel()
        board = platform._emitter.board
    first = paper.events[0].payload
    assert first["price"] == board[first["pair"]].price
