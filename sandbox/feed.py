"""What the platform has to tell: trades become ticks and candles, other events are woven in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Context
from typing import Final, NamedTuple

from sandbox.script import Script
from sandbox.tape import Trade

MINUTE_MS: Final = 60_000
EXACT: Final = Context(prec=80)  # volumes add up without rounding


class Item(NamedTuple):
    """An event to be: when on the tape, its type, its payload as JSON text, its trade."""

    tape_ms: int
    type: str
    payload: str
    trade: Trade | None = None


class Bar:
    """Open, high, low, close and volume of one pair in one minute of the tape."""

    __slots__ = ("_high", "_low", "close", "high", "low", "minute", "open", "volume")

    def __init__(self, trade: Trade) -> None:
        self.minute = trade.ts_ms // MINUTE_MS
        self.open = self.high = self.low = self.close = trade.price_text
        self._high = self._low = trade.price
        self.volume = trade.qty

    def add(self, trade: Trade) -> None:
        """Take one more trade of the same minute in."""
        self.close = trade.price_text
        self.volume = EXACT.add(self.volume, trade.qty)
        if trade.price > self._high:
            self._high, self.high = trade.price, trade.price_text
        if trade.price < self._low:
            self._low, self.low = trade.price, trade.price_text

    def fields(self) -> str:
        """The five numbers as JSON fields, the prices as they were written on the tape."""
        return (
            f'"open":{self.open},"high":{self.high},"low":{self.low},'
            f'"close":{self.close},"volume":{self.volume!s}'
        )


def market(trades: Iterable[Trade]) -> Iterator[Item]:
    """A tick for each trade, and a candle before the first trade of a pair's next minute.

    A trade that comes after its minute was closed is told as a tick and changes no bar.
    """
    bars: dict[str, Bar] = {}
    for trade in trades:
        bar = bars.get(trade.pair)
        minute = trade.ts_ms // MINUTE_MS
        if bar is None or minute > bar.minute:
            if bar is not None:
                yield _candle(trade, bar)
            bar = bars[trade.pair] = Bar(trade)
        elif minute == bar.minute:
            bar.add(trade)
        yield _tick(trade, bar)


def _tick(trade: Trade, bar: Bar) -> Item:
    payload = (
        f'{{"pair":"{trade.pair}","price":{trade.price_text},"timestamp_ms":{trade.ts_ms},'
        f'"qty":{trade.qty_text},{bar.fields()}}}'
    )
    return Item(trade.ts_ms, "market.tick", payload, trade)


def _candle(trade: Trade, bar: Bar) -> Item:
    payload = f'{{"pair":"{trade.pair}",{bar.fields()},"ts_ms":{bar.minute * MINUTE_MS}}}'
    return Item(trade.ts_ms, "market.candle", payload)


def weave(items: Iterable[Item], script: Script, every: int) -> Iterator[Item]:
    """The items, with one event of the script after each `every` ticks; 0 weaves nothing."""
    ticks = 0
    for item in items:
        yield item
        ticks += item.trade is not None
        if every and item.trade is not None and ticks % every == 0:
            kind, payload = script.next()
            yield Item(item.tape_ms, kind, payload)
