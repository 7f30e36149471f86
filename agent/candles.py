"""Candles: the last one of each pair is kept, and a strategy may look at them."""

from __future__ import annotations

import msgspec

from agent.desk import Desk
from agent.records import keep
from agent.risk import LONGEST_PAIR
from agent.signals import order
from agent.strategy import Strategy, Window
from fleet.core.errors import DataError, StateError
from fleet.core.payloads import MarketCandle, MarketTick
from fleet.store import facts
from fleet.store.api import Tx
from fleet.store.facts import Fact
from workers.context import Context


async def on_candle(ctx: Context, candle: MarketCandle) -> None:
    """Keep the candle, and move the window of the pair's candles on where a strategy wants it."""
    if not 0 < len(candle.pair) <= LONGEST_PAIR:
        raise DataError(f"a pair of {len(candle.pair)} characters is no market")
    keep(ctx, f"candle/{candle.pair}", candle)
    desk: Desk = ctx.app
    # However late it is: an old candle moves the window on, and its order expires.
    if desk.candles is not None:
        await _step(ctx, desk, candle, desk.candles)


async def _step(ctx: Context, desk: Desk, candle: MarketCandle, strategy: Strategy) -> None:
    name = f"window/{desk.book}/{strategy.name}/{candle.pair}"
    known = await desk.store.read(lambda tx: facts.get(tx, name))
    before = msgspec.json.decode(known.value, type=Window) if known else None
    after, signal = strategy.step(before, _as_tick(candle, ctx.event.ts), ctx.event.ts)
    if after is before or after is None:
        return
    fact = Fact(name, msgspec.json.encode(after).decode(), ctx.event.event_id)
    ctx.write(lambda tx: _move(tx, known, fact))
    if signal is not None:
        order(ctx, candle.pair, signal, strategy, after)


def _move(tx: Tx, known: Fact | None, fact: Fact) -> None:
    """Write the window; where another candle moved it meanwhile, this one is tried again."""
    if facts.get(tx, fact.name) != known:
        raise StateError(f"{fact.name} moved on meanwhile")
    facts.put(tx, fact)


def _as_tick(candle: MarketCandle, ts: int) -> MarketTick:
    return MarketTick(
        candle.pair,
        candle.close,
        ts,
        open=candle.open,
        high=candle.high,
        low=candle.low,
        close=candle.close,
        volume=candle.volume,
    )
