"""Trading on paper: live prices, and fills at the last one, as the stand-in platform fills."""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Final

import msgspec

from agent.strategy import Window
from agent.venue import Opened
from agent.wire import ClosedPosition, VenuePosition
from fleet import clock
from fleet.core.errors import RefusedError
from fleet.core.payloads import OrderRequested
from fleet.store import lanes, paper
from fleet.store.api import Store, Tx
from fleet.store.paper import PaperPosition

USDC: Final = Decimal("0.000001")
EXACT: Final = Context(prec=60)


class PaperVenue:
    """A venue in the store: the same calls and the same promises, and no money.

    Prices are the last of the lanes of `service`; a pair without one fills at its order's price.
    Like the platform it opens a key once, and closes a position once.
    """

    def __init__(self, store: Store, account: str, service: str) -> None:
        self._store = store
        self._account = account
        self._service = service

    async def positions(self) -> tuple[VenuePosition, ...]:
        """All positions that are open on paper now."""
        held = await self._store.read(lambda tx: paper.open_positions(tx, self._account))
        return tuple(_told(one) for one in held)

    async def open(self, order: OrderRequested) -> Opened:
        """Open a position at the last price, or what was opened under the order's key before.

        Raises RefusedError where there is no price.
        """
        return await self._store.run(lambda tx: self._open(tx, order))

    async def close(self, position_id: str) -> ClosedPosition | None:
        """Close a position at the last price: what it gained, now or before; None: unknown."""
        return await self._store.run(lambda tx: self._close(tx, position_id))

    def _open(self, tx: Tx, order: OrderRequested) -> Opened:
        position_id = f"paper_{order.key}"
        known = paper.get(tx, self._account, position_id)
        if known is not None:
            return Opened(_told(known), again=True)
        price = self._price(tx, order.pair) or order.price
        if price is None:
            raise RefusedError(f"there is no price for {order.pair} yet")
        fresh = PaperPosition(
            agent=self._account,
            position_id=position_id,
            order_key=order.key,
            pair=order.pair,
            direction=order.direction,
            size=order.size_usdc,
            leverage=order.leverage,
            entry_price=price,
            opened_ms=clock.now_ms(),
        )
        paper.put(tx, fresh)
        return Opened(_told(fresh), again=False)

    def _close(self, tx: Tx, position_id: str) -> ClosedPosition | None:
        held = paper.get(tx, self._account, position_id)
        if held is None:
            return None
        if not held.closed_ms:
            price = self._price(tx, held.pair) or held.entry_price
            held = msgspec.structs.replace(
                held, exit_price=price, pnl=profit(held, price), closed_ms=clock.now_ms()
            )
            paper.put(tx, held)
        return ClosedPosition(held.pnl or Decimal(0), held.exit_price, position_id)

    def _price(self, tx: Tx, pair: str) -> Decimal | None:
        kept = lanes.state_of(tx, self._service, pair)
        window = msgspec.json.decode(kept.body, type=Window) if kept else None
        return window.prices[-1] if window and window.prices else None


def profit(position: PaperPosition, price: Decimal) -> Decimal:
    """What closing at `price` gains, in USDC to six places; a loss is negative."""
    move = EXACT.divide(EXACT.subtract(price, position.entry_price), position.entry_price)
    gain = EXACT.multiply(EXACT.multiply(position.size, position.leverage), move)
    return (gain if position.direction == "long" else -gain).quantize(USDC, context=EXACT)


def _told(position: PaperPosition) -> VenuePosition:
    return VenuePosition(
        position_id=position.position_id,
        pair=position.pair,
        direction=position.direction,
        size_usdc=position.size,
        leverage=position.leverage,
        entry_price=position.entry_price,
        opened_at_ms=position.opened_ms,
        idempotency_key=position.order_key,
        status="closed" if position.closed_ms else "open",
    )
