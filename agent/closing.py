"""Closing a position of the book: to make room for an order, or because a shutdown asks for it."""

from __future__ import annotations

from agent.desk import Desk
from agent.venue import listed
from fleet.core.decision import Ack, Decision, Postpone
from fleet.core.errors import DataError, RefusedError
from fleet.core.payloads import CloseRequested
from fleet.store import positions
from fleet.store.positions import Position
from workers.context import Context

BUSY_S = 5.0


async def on_close(ctx: Context, wish: CloseRequested) -> Decision:
    """Close the position that is named, once; whether an earlier attempt did it is no matter."""
    desk: Desk = ctx.app
    ctx.effecting.mode = desk.mode_text
    held = await desk.store.read(lambda tx: positions.get(tx, wish.position))
    if held is None:
        raise DataError(f"the book has no position under {wish.position}")
    if held.state == "reserved":
        return Postpone(BUSY_S, "whether it was opened is not known yet")
    if held.state in ("open", "closing"):
        await close(desk, held, ctx)
        held = await desk.store.read(lambda tx: positions.get(tx, wish.position)) or held
    elif ctx.effecting.before is None:
        return Ack(skipped="it is closed already")
    ctx.effecting.done({"position_id": held.venue_id, "pnl": held.pnl})
    return Ack()


async def close(desk: Desk, held: Position, ctx: Context) -> None:
    """Close a position; one that is closing already is closed again, which changes nothing.

    Raises what the venue's `close` raises, and NotNowError while its breaker is open.
    """
    await desk.store.run(lambda tx: positions.closing(tx, held.key))
    async with desk.guard.call(ctx.effecting.holder, ctx.now_ms):
        closed = await desk.venue.close(held.venue_id)
    # Where the venue does not know it, its list must agree before the book forgets a position.
    if closed is None and held.venue_id in {one.position_id for one in await listed(desk.venue)}:
        raise RefusedError(f"the venue lists {held.venue_id} and will not close it")
    pnl, price = (closed.realised_pnl_usdc, closed.exit_price) if closed else (None, None)
    now_ms = ctx.now_ms
    await desk.store.run(lambda tx: positions.closed(tx, held.key, pnl, price, now_ms))
