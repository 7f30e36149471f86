"""From a signal to the order that it asks for."""

from __future__ import annotations

from agent.desk import Desk
from agent.keys import trade_key
from agent.strategy import Signal, Strategy
from fleet.core.payloads import OrderRequested


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
    )
