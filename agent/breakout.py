"""Breakout: what closes beyond all of its last closes is expected to go on. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from agent.keys import MINUTE_MS
from agent.momentum import is_price
from agent.strategy import Signal, Window
from fleet.core.events import MAX_AHEAD_MS
from fleet.core.payloads import MarketTick

_EMPTY: Final = Window()


class Breakout:
    """Signals a close beyond the highest or lowest of the last `size` by more than `threshold`.

    A Donchian channel over closes, for candles; after a signal the channel moves on with the
    price. What is no positive number, not newer than the last or dated ahead is no use.
    """

    name: Final = "breakout"

    def __init__(self, size: int = 20, threshold: Decimal = Decimal("0.003")) -> None:
        self._size = size
        self._up = 1 + threshold
        self._down = 1 - threshold

    def step(
        self, window: Window | None, tick: MarketTick, ts: int
    ) -> tuple[Window | None, Signal | None]:
        """The window after `tick`, and a signal where it leaves the channel."""
        price, at_ms, old = tick.price, tick.timestamp_ms, window or _EMPTY
        if at_ms <= old.last_ms or at_ms > ts + MAX_AHEAD_MS or not is_price(price):
            return window, None
        long_minute, short_minute, signal = old.long_minute, old.short_minute, None
        if len(old.prices) >= self._size:
            minute = at_ms // MINUTE_MS
            if price > max(old.prices) * self._up and minute > long_minute:
                long_minute, signal = minute, Signal("long", price, at_ms)
            elif price < min(old.prices) * self._down and minute > short_minute:
                short_minute, signal = minute, Signal("short", price, at_ms)
        prices = (*old.prices, price)[-self._size :]
        return Window(prices, at_ms, long_minute, short_minute), signal
