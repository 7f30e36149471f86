"""From a signal to the order that it asks for, and the record of why."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from agent.desk import Desk
from agent.keys import trade_key
from agent.strategy import Signal, Strategy, Window
from fleet.core.payloads import OrderRequested, Payload
from fleet.store import decisions
from workers.context import Context

RECORD = "signal.recorded"

_encode = msgspec.json.Encoder(decimal_format="string").encode


class SignalRecorded(Payload, frozen=True, gc=False):
    """A signal as it was given: the prices it saw, its threshold, the mode, and its order."""

    pair: str
    direction: str
    price: Decimal
    timestamp_ms: int
    strategy: str
    key: str
    order_id: str
    mode: str
    prices: int
    first: Decimal
    low: Decimal
    high: Decimal
    threshold: Decimal


def order(ctx: Context, pair: str, signal: Signal, strategy: Strategy, window: Window) -> None:
    """Ask for the order of a signal, and have it recorded what the signal was made of.

    Whether the order is carried out the executor says; the record is there either way. It is an
    event of its own, for a lane writes nothing but its state.
    """
    desk: Desk = ctx.app
    wish = order_of(desk, pair, signal, strategy)
    asked = ctx.emit("order.requested", wish, key=wish.key)
    seen = window.prices or (signal.price,)
    record = SignalRecorded(
        pair=pair,
        direction=signal.direction,
        price=signal.price,
        timestamp_ms=signal.timestamp_ms,
        strategy=strategy.name,
        key=wish.key,
        order_id=asked.event_id,
        mode=desk.mode_text,
        prices=len(seen),
        first=seen[0],
        low=min(seen),
        high=max(seen),
        threshold=desk.settings.threshold,
    )
    ctx.emit(RECORD, record, key=wish.key)


def order_of(desk: Desk, pair: str, signal: Signal, strategy: Strategy) -> OrderRequested:
    """The order for a signal: one key for each pair, direction and minute, whoever signals."""
    return OrderRequested(
        pair=pair,
        direction=signal.direction,
        size_usdc=desk.settings.max_trade_usdc,
        leverage=desk.settings.leverage,
        timestamp_ms=signal.timestamp_ms,
        key=trade_key(desk.book, pair, signal.direction, signal.timestamp_ms),
        price=signal.price,
        strategy=strategy.name,
        paper=desk.settings.paper,
    )


def on_signal(ctx: Context, record: SignalRecorded) -> None:
    """Write down why an order was asked for."""
    inputs: dict[str, Any] = {
        "price": record.price,
        "first": record.first,
        "low": record.low,
        "high": record.high,
        "prices": record.prices,
        "threshold": record.threshold,
        "move": record.price / record.first - 1 if record.first > 0 else None,
    }
    row = decisions.Decision(
        event_id=ctx.event.event_id,
        agent=ctx.event.agent_id,
        pair=record.pair,
        direction=record.direction,
        strategy=record.strategy,
        trade_key=record.key,
        mode=record.mode,
        outcome="ordered",
        inputs=_encode(inputs).decode(),
        ts_ms=record.timestamp_ms,
        at_ms=ctx.now_ms,
        order_id=record.order_id,
    )
    ctx.write(lambda tx: decisions.add(tx, row))
