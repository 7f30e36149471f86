"""The price at hand, and what a position gains at a price."""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Final

import msgspec

from agent.strategy import Window
from fleet.core.payloads import OrderRequested
from fleet.store import lanes
from fleet.store.api import Tx
from fleet.store.positions import Position

USDC: Final = Decimal("0.000001")
EXACT: Final = Context(prec=60)


def last_price(
    tx: Tx, service: str, pair: str, order: OrderRequested | None = None
) -> Decimal | None:
    """The last price that the lanes of `service` have of a pair; None where they have none.

    An order may be here before the tick that led to it is committed: then its own is the last.
    """
    kept = lanes.state_of(tx, service, pair)
    window = msgspec.json.decode(kept.body, type=Window) if kept else Window()
    if order is not None and order.timestamp_ms > window.last_ms and (order.price or 0) > 0:
        return order.price
    return window.prices[-1] if window.prices else None


def profit(
    direction: str, size: Decimal, leverage: Decimal, entry: Decimal, price: Decimal
) -> Decimal:
    """What closing at `price` gains, in USDC to six places; a loss is negative."""
    move = EXACT.divide(EXACT.subtract(price, entry), entry)
    gain = EXACT.multiply(EXACT.multiply(size, leverage), move)
    return (gain if direction == "long" else -gain).quantize(USDC, context=EXACT)


def presumed_loss(held: Position, entry: Decimal | None, price: Decimal | None) -> Decimal:
    """What counts as lost of a position that is over, while nobody knows what it gained.

    Its loss at `price`, and never a gain; the whole stake where a price is missing.
    """
    if entry is None or price is None:
        return held.size
    return max(Decimal(0), -profit(held.direction, held.size, held.leverage, entry, price))
