"""Prices over REST where the stream had none: synthetic ticks."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, Final

import aiohttp
import msgspec
import structlog

from fleet import clock
from fleet.core.events import EARLIEST_MS, MAX_AHEAD_MS, Event
from fleet.core.payloads import MONEY_LIMIT, Payload
from fleet.core.ulid import derived_ulid
from publisher.beside import OwnEvents

TICK: Final = "market.tick"
SYNTHETIC: Final = "x-synthetic"
PATH: Final = "/api/market/prices"
LARGEST_ANSWER: Final = 4 << 20
LONGEST_PAIR: Final = 64
PAIRS: Final = 10_000
APART_S: Final = 5.0
"""So long between two looks, however many gaps there are."""
LATE_MS: Final = 30_000
"""What comes later than this after its event, workers expire (TICK_MAX_AGE_S)."""
_NUMBERS: Final = frozenset({int, Decimal})
_OTHERS: Final = ("open", "high", "low", "close", "volume")

log = structlog.get_logger("publisher.prices")


class Quote(Payload, frozen=True):
    """The last price of a pair, and when it was made, if that is told."""

    pair: str
    price: Decimal
    timestamp_ms: int | None = None


class _Quotes(msgspec.Struct, frozen=True):
    pairs: list[msgspec.Raw]


class Newest:
    """When the newest tick of each pair was made that the stream gave."""

    def __init__(self) -> None:
        self._at_ms: dict[str, int] = {}
        self.doubted = False

    def note(self, payload: dict[str, Any], ts: int, now_ms: int) -> None:
        """Take note of a tick whose event was made at `ts`.

        One that no worker would count hides no gap, and is doubted: too late, dated ahead, without
        a price above zero, or no tick at all.
        """
        pair: Any = payload.get("pair")
        at_ms: Any = payload.get("timestamp_ms")
        is_dated = type(at_ms) is int and at_ms <= ts + MAX_AHEAD_MS and now_ms - ts <= LATE_MS
        if not (is_dated and _is_name(pair) and _has_prices(payload)):
            self.doubted = True
        elif at_ms > self._at_ms.get(pair, 0):
            if len(self._at_ms) >= PAIRS and pair not in self._at_ms:
                return
            self._at_ms[pair] = at_ms

    def missing(self, quotes: Iterable[Quote], now_ms: int, every_ms: int) -> list[Quote]:
        """The quotes that are newer than what the stream gave, each with its time.

        A quote without a time is one of this second, and missing only where the stream had
        nothing of its pair for `every_ms`.
        """
        return [
            msgspec.structs.replace(quote, timestamp_ms=at_ms)
            for quote in quotes
            if (at_ms := self._time_of(quote, now_ms, every_ms))
        ]

    def _time_of(self, quote: Quote, now_ms: int, every_ms: int) -> int:
        newest = self._at_ms.get(quote.pair, 0)
        if quote.timestamp_ms is None:
            return now_ms // 1000 * 1000 if newest <= now_ms - every_ms else 0
        is_sane = EARLIEST_MS <= quote.timestamp_ms <= now_ms + MAX_AHEAD_MS
        return quote.timestamp_ms if is_sane and quote.timestamp_ms > newest else 0


class PriceFill:
    """Asks for prices every `every_s` seconds and after each gap, and publishes what is missing.

    A synthetic tick says so in the header `x-synthetic` and in its payload. Its id is that of its
    agent, pair and time, so that two bridges make the same one.
    """

    def __init__(
        self,
        own: OwnEvents,
        newest: Newest,
        *,
        url: str,
        agent: str,
        key: str,
        every_s: float,
        tls: ssl.SSLContext | None = None,
        now_ms: Callable[[], int] = clock.now_ms,
    ) -> None:
        self._own = own
        self._newest = newest
        self._url = url + PATH
        self._agent = agent
        self._headers = {"Authorization": f"Bearer {key}", "X-Agent-Id": agent}
        self._every_s = every_s
        self._now_ms = now_ms
        self._tls = tls
        self._gap = False
        self._filled: set[str] = set()

    def gap(self) -> None:
        """Look soon: the stream has missed something, or it may stand in what cannot be read."""
        self._gap = True

    async def run(self) -> None:
        """Look again and again, for ever."""
        timeout = aiohttp.ClientTimeout(total=min(self._every_s, 10.0))
        async with aiohttp.ClientSession(
            timeout=timeout,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(ssl=self._tls or True),
        ) as session:
            while True:
                await self._due()
                try:
                    await self._fill(session)
                except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                    # Not its text: a header with the key hangs on some of them.
                    log.warning("no prices to be had", reason=type(error).__name__)

    async def _due(self) -> None:
        """Wait until the next look."""
        passed = 0.0
        while passed < self._every_s:
            await asyncio.sleep(step := min(1.0, self._every_s))
            passed += step
            if (self._gap or self._newest.doubted) and passed >= min(APART_S, self._every_s):
                break
        self._gap = self._newest.doubted = False

    async def _fill(self, session: aiohttp.ClientSession) -> None:
        if not await self._own.wanted(TICK):
            return
        async with session.get(self._url, allow_redirects=False) as response:
            response.raise_for_status()
            body = await _bounded(response)
        now_ms = self._now_ms()
        missing = self._newest.missing(read_quotes(body), now_ms, round(self._every_s * 1000))
        events = [synthetic(quote, self._agent) for quote in missing]
        # A quote that stands still was filled in already: its lane would have it twice.
        fresh = [event for event in events if event.event_id not in self._filled]
        for event in fresh:
            await self._own.publish(event, {SYNTHETIC: True})
        self._filled = {event.event_id for event in events}
        if fresh:
            log.info("prices filled in", pairs=len(fresh))


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_chunked(1 << 16):
        parts.append(part)
        size += len(part)
        if size > LARGEST_ANSWER:
            raise ValueError("too large")
    return b"".join(parts)


def read_quotes(body: bytes) -> list[Quote]:
    """The usable quotes of an answer: a pair with a name, and a price above zero.

    Raises ValueError where it is no answer at all.
    """
    try:
        told = msgspec.json.decode(body, type=_Quotes).pairs
    except RecursionError:
        raise ValueError("nested too deep") from None
    return [quote for raw in told if (quote := _read(raw))]


def synthetic(quote: Quote, agent: str) -> Event:
    """The tick that stands for a quote with a time."""
    at_ms = quote.timestamp_ms or 0
    return Event(
        event_id=derived_ulid(at_ms, f"price:{agent}:{quote.pair}"),
        type=TICK,
        agent_id=agent,
        payload={
            "pair": quote.pair,
            "price": quote.price,
            "timestamp_ms": at_ms,
            "synthetic": True,
        },
        ts=at_ms,
    )


def _is_name(pair: Any) -> bool:
    return type(pair) is str and 0 < len(pair) <= LONGEST_PAIR


def _has_prices(payload: dict[str, Any]) -> bool:
    """Whether a worker reads it as a MarketTick; by hand, for converting costs thrice as much."""
    price: Any = payload.get("price")
    if type(price) not in _NUMBERS or not 0 < price < MONEY_LIMIT:
        return False
    for name in _OTHERS:
        value: Any = payload.get(name)
        if value is None:
            continue
        if type(value) not in _NUMBERS or not -MONEY_LIMIT < value < MONEY_LIMIT:
            return False
    return True


def _read(raw: msgspec.Raw) -> Quote | None:
    try:
        quote = msgspec.json.decode(raw, type=Quote)
    except (msgspec.MsgspecError, ValueError, ArithmeticError):
        return None
    is_usable = 0 < len(quote.pair) <= LONGEST_PAIR and quote.price.is_finite() and quote.price > 0
    return quote if is_usable else None
