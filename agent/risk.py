"""Rules of the executor that need nobody: limits, and what is whose. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from agent.settings import AgentSettings
from agent.wire import VenuePosition
from fleet.core.events import MAX_AHEAD_MS
from fleet.core.payloads import OrderRequested
from fleet.store.positions import Position

LONGEST_PAIR: Final = 64
LONGEST_KEY: Final = 128
MOST_FOLD: Final = 10
"""A price that moved further than tenfold while a position was open is taken for an error."""
CLOCKS_APART_MS: Final = 60_000
"""How far the venue's clock may be from ours."""


def fault(order: OrderRequested, settings: AgentSettings, ts: int) -> str | None:
    """Why the limits forbid this order, whose event was made at `ts`; None where they do not."""
    if not 0 < len(order.pair) <= LONGEST_PAIR or not 0 < len(order.key) <= LONGEST_KEY:
        return "an order needs a pair and a key, and short ones"
    if not 0 < order.timestamp_ms <= ts + MAX_AHEAD_MS:
        # In the book it would make every honest order after it look late.
        return "timestamp_ms lies in the future, or before 1970"
    if order.size_usdc <= 0:
        return f"size_usdc {order.size_usdc} is not above zero"
    if order.size_usdc > settings.max_trade_usdc:
        return f"size_usdc {order.size_usdc} is over {settings.max_trade_usdc} (MAX_TRADE_USDC)"
    if not 1 <= order.leverage <= settings.leverage:
        return f"leverage {order.leverage} is not 1 to {settings.leverage} (LEVERAGE)"
    return None


def find(listed: Iterable[VenuePosition], place: Position) -> VenuePosition | None:
    """The open position that was made for a reserved place of the book, if one was.

    Where the venue does not tell keys: one of its pair and direction, not older than the
    reservation (our book holds that pair's only place, so it is nobody else's).
    """
    return next((one for one in listed if _is_made_for(one, place)), None)


def is_strange(position: VenuePosition, order: OrderRequested) -> bool:
    """Whether what the venue tells of a position is not what was ordered."""
    return (
        position.pair not in ("", order.pair)
        or position.direction not in ("", order.direction)
        or position.size_usdc not in (None, order.size_usdc)
        or position.leverage not in (None, order.leverage)
    )


def is_absurd(held: Position, gained: Decimal) -> bool:
    """Whether no price can have made a position gain or lose so much.

    Such a figure would blind the drawdown for ever, or never let it end.
    """
    return abs(gained) > held.size * held.leverage * MOST_FOLD


def _is_made_for(position: VenuePosition, place: Position) -> bool:
    if position.idempotency_key is not None:
        return position.idempotency_key == place.key
    opened_ms = position.opened_at_ms
    is_alike = position.pair == place.pair and position.direction == place.direction
    return is_alike and (opened_ms is None or opened_ms >= place.opened_ms - CLOCKS_APART_MS)
