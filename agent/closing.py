"""Closing a position of the book: to make room for an order, or because somebody asks for it."""

from __future__ import annotations

from typing import Final

from agent import book
from agent.desk import SERVICE, Desk
from agent.risk import is_absurd
from agent.venue import listed
from agent.wire import ClosedPosition
from fleet import clock
from fleet.core.decision import Ack, Decision, Postpone
from fleet.core.errors import DataError, PermanentError, RefusedError
from fleet.core.payloads import CloseRequested, OrderRequested
from fleet.store import positions
from fleet.store.api import Tx
from fleet.store.positions import Position
from workers.context import Context

BUSY_S: Final = 5.0


async def on_close(ctx: Context, wish: CloseRequested) -> Decision:
    """Close the position that is named, once; whether an earlier attempt did it is no matter.

    One that is closed already is asked about where nobody knows what it gained.
    """
    desk: Desk = ctx.app
    ctx.effecting.mode = desk.mode_text
    held = await desk.store.read(lambda tx: _named(tx, desk.book, wish))
    if held is None:
        return await _close_unbooked(desk, wish, ctx)
    book.must_be_in(held, desk.book)
    if held.state == "reserved":
        return Postpone(BUSY_S, "whether it was opened is not known yet")
    if held.state in ("open", "closing"):
        await close(desk, held, ctx)
    elif held.state == "closed" and held.pnl is None and held.venue_id:
        await _ask_again(desk, held, ctx)
    elif ctx.effecting.before is None:
        return Ack(skipped="it is closed already")
    key = held.key
    held = await desk.store.read(lambda tx: positions.get(tx, key)) or held
    ctx.effecting.done({"position_id": held.venue_id, "pnl": held.pnl})
    return Ack()


async def close(
    desk: Desk, held: Position, ctx: Context, order: OrderRequested | None = None
) -> None:
    """Close a position; one that is closing already is closed again, which changes nothing.

    `order` is what it makes room for, if anything.
    Raises what the venue's `close` raises, and NotNowError while its breaker is open. A refusal
    is told at once: nobody else would close it.
    """
    key, now_ms = held.key, ctx.now_ms
    await desk.store.run(lambda tx: positions.closing(tx, key, now_ms))
    try:
        closed = _believed(held, await _closed(desk, held.venue_id, ctx, order))
    except PermanentError as error:
        detail = f"{held.pair} {held.direction} ({held.venue_id}, key {key}): {error}"
        await desk.alert(ctx, "close_refused", key=key, detail=detail)
        raise

    def write(tx: Tx) -> None:
        if closed is None:
            book.doubt(tx, held, SERVICE, now_ms)
        else:
            positions.closed(tx, key, closed.realised_pnl_usdc, closed.exit_price, now_ms)

    await desk.store.run(write)


async def _ask_again(desk: Desk, held: Position, ctx: Context) -> None:
    """Take what the venue says now of a position that is over."""
    now_ms = ctx.now_ms
    closed = _believed(held, await _closed(desk, held.venue_id, ctx))
    if closed is not None:
        pnl, price = closed.realised_pnl_usdc, closed.exit_price
        await desk.store.run(lambda tx: positions.closed(tx, held.key, pnl, price, now_ms))


def _believed(held: Position, closed: ClosedPosition | None) -> ClosedPosition | None:
    """What the venue says that it gained; None where that cannot be."""
    if closed is None or is_absurd(held, closed.realised_pnl_usdc):
        return None
    return closed


async def _close_unbooked(desk: Desk, wish: CloseRequested, ctx: Context) -> Decision:
    """Close what the book does not have, for an operator who named it by the venue's id."""
    if not wish.venue_id or wish.position:
        raise DataError(f"the book has no position under {wish.position}")
    closed = await _closed(desk, wish.venue_id, ctx)
    if closed is None and ctx.effecting.before is None:
        return Ack(skipped="the venue has no such position")
    pnl = closed.realised_pnl_usdc if closed else None
    ctx.effecting.done({"position_id": wish.venue_id, "pnl": pnl})
    return Ack()


async def _closed(
    desk: Desk, venue_id: str, ctx: Context, order: OrderRequested | None = None
) -> ClosedPosition | None:
    """What closing it gained; None where the venue does not know it, and its list agrees."""
    async with desk.guard.call(ctx.effecting.holder, max(ctx.now_ms, clock.now_ms())):
        closed = await desk.venue.close(venue_id, order)
    # Its list must agree before the book forgets a position.
    if closed is None and venue_id in {one.position_id for one in await listed(desk.venue)}:
        raise RefusedError(f"the venue lists {venue_id} and will not close it")
    return closed


def _named(tx: Tx, whose: str, wish: CloseRequested) -> Position | None:
    """The position that is meant; one named by the venue's id may be in the book all the same."""
    if wish.position:
        return positions.get(tx, wish.position)
    live = positions.open_positions(tx, whose)
    return next((one for one in live if one.venue_id == wish.venue_id), None)
