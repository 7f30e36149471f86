"""Trading on paper: live prices, and fills at the last one, as the stand-in platform fills."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from agent.prices import last_price, profit
from agent.venue import Opened
from agent.wire import ClosedPosition, VenuePosition
from fleet import clock
from fleet.core.errors import RefusedError
from fleet.core.payloads import OrderRequested
from fleet.store import paper
from fleet.store.api import Store, Tx
from fleet.store.paper import PaperPosition


class PaperVenue:
    """A venue in the store: the same calls and the same promises, and no money.

    Prices are the last of the lanes of `service`, or its order's where that is newer.
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

    async def close(
        self, position_id: str, order: OrderRequested | None = None
    ) -> ClosedPosition | None:
        """Close a position at the last price: what it gained, now or before; None: unknown."""
        return await self._store.run(lambda tx: self._close(tx, position_id, order))

    def _open(self, tx: Tx, order: OrderRequested) -> Opened:
        position_id = f"paper_{order.key}"
        known = paper.get(tx, self._account, position_id)
        if known is not None:
            return Opened(_told(known), again=True)
        price = last_price(tx, self._service, order.pair, order)
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

    def _close(
        self, tx: Tx, position_id: str, order: OrderRequested | None
    ) -> ClosedPosition | None:
        held = paper.get(tx, self._account, position_id)
        if held is None:
            return None
        if not held.closed_ms:
            price = last_price(tx, self._service, held.pair, order) or held.entry_price
            gained = profit(held.direction, held.size, held.leverage, held.entry_price, price)
            held = msgspec.structs.replace(
                held, exit_price=price, pnl=gained, closed_ms=clock.now_ms()
            )
            paper.put(tx, held)
        return ClosedPosition(held.pnl or Decimal(0), held.exit_price, position_id)


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
