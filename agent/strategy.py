"""What a strategy is, and how one is found by the name a user writes."""

from __future__ import annotations

import importlib
from decimal import Decimal
from typing import Literal, Protocol, TypeAlias

import msgspec

from fleet.core.errors import SettingsError
from fleet.core.payloads import MarketTick

Direction: TypeAlias = Literal["long", "short"]


class Window(msgspec.Struct, frozen=True, gc=False):
    """The last prices of a pair, oldest first, and the last minute signalled each way."""

    prices: tuple[Decimal, ...] = ()
    last_ms: int = 0
    long_minute: int = -1
    short_minute: int = -1
    synthetic: bool = False
    """Whether the last price was put in where the stream had none."""


class Signal(msgspec.Struct, frozen=True, gc=False):
    """A reason to be long or short, at the time and price of the tick that gave it."""

    direction: Direction
    price: Decimal
    timestamp_ms: int


class Strategy(Protocol):
    """Looks at one pair, price by price, and remembers nothing outside of its window.

    It is made with `size`, the prices in a window, and `threshold`, a fraction. A candle is told
    as a tick too: its close as the price, its event's time, and its open, high, low and volume.
    """

    @property
    def name(self) -> str:
        """Stands in the orders that it asked for."""
        ...

    def step(
        self, window: Window | None, tick: MarketTick, ts: int
    ) -> tuple[Window | None, Signal | None]:
        """The window after `tick`, and a signal where it gives one.

        `ts` is when the event of the tick was made. A tick that is no use gives the same
        window, and no signal.
        """
        ...


def strategy(text: str, size: int, threshold: Decimal) -> Strategy:
    """The strategy `module:Class`. Raises SettingsError where there is none."""
    module, _, name = text.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
        made: Strategy = found(size=size, threshold=threshold)
    except Exception as error:
        raise SettingsError(
            f"{text!r} makes no strategy ({type(error).__name__});"
            " write module:Class, of a class that takes size and threshold."
        ) from error
    if not (callable(getattr(made, "step", None)) and isinstance(made.name, str)):
        raise SettingsError(f"{text!r} is no strategy: it has no step, or no name.")
    return made
