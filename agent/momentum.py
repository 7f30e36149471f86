"""Momentum: what moved far enough over the last ticks is expected to move on. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from agent.keys import MINUTE_MS
from agent.strategy import Signal, Window
from fleet.core.events import MAX_AHEAD_MS
from fleet.core.payloads import MarketTick


class Momentum:
    """Signals a move of more than `threshold` (a fraction) over a full window of `size` ticks.

    Each direction is signalled once a minute, as an order key is. Prices that are no positive
    number, older than the window's last or dated beyond the event's own time are no use.
    """

    name: Final = "momentum"

    def __init__(self, size: int = 20, threshold: Decimal = Decimal("0.003")) -> None:
        self._before = size - 1
        self._up = 1 + threshold
        self._down = 1 - threshold

    def step(
        self, window: Window | None, tick: MarketTick, ts: int
    ) -> tuple[Window | None, Signal | None]:
        """The window after `tick`, and a signal where the move is large enough."""
        price, at_ms = tick.price, tick.timestamp_ms
        old = window or _EMPTY
        # A tick from the future would make every honest one after it look stale.
        if at_ms < old.last_ms or at_ms > ts + MAX_AHEAD_MS or not is_price(price):
            return window, None
        prices = (*old.prices[-self._before :], price)
        long_minute, short_minute, signal = old.long_minute, old.short_minute, None
        if len(prices) > self._before:
            minute = at_ms // MINUTE_MS
            if price > prices[0] * self._up and minute > long_minute:
                long_minute, signal = minute, Signal("long", price, at_ms)
            elif price < prices[0] * self._down and minute > short_minute:
                short_minute, signal = minute, Signal("short", price, at_ms)
        return Window(prices, at_ms, long_minute, short_minute), signal


_EMPTY: Final = Window()


def is_price(price: Decimal) -> bool:
    """Whether it is a number above zero."""
    # NaN has no order: the first test keeps it away from the second.
    return price.is_finite() and price > 0
