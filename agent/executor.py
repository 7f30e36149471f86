"""Orders, each carried out once, whatever happens on the way.

    a closing that was begun is finished · limits · age · pause
      └─ the pair's place in the book:  ours ────────────────────────────► ask the venue first
           free or the other way: close that, then reserve ─► send ─► opened ──► book, done
           the same way, late, spent, full ─► skip              ├──► spent ───► book, skip
           someone is at it ────────────────► postpone          ├──► refused ─► give back, fail
                                                                └──► no answer: the place stays
                                                                     taken, the outcome is unknown

`on_unknown` is asked before anything else once an earlier attempt may have reached the venue: it
looks into the book, then at the venue's positions, and only then sends the same key again.
Nothing is retried here: the attempts of the delivery are the attempts of the order.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from agent import records, risk
from agent.desk import Desk
from agent.wire import VenuePosition
from fleet.core.decision import Ack, Decision, Expire, Fail, Postpone
from fleet.core.errors import ApiError, DataError, NotNowError, RefusedError
from fleet.core.failure import failure
from fleet.core.payloads import OrderRequested
from fleet.store import positions
from fleet.store.positions import Position, Refused
from workers.context import Context

BUSY_S: Final = 0.5
RESEND_MS: Final = 23 * 60 * 60 * 1000
"""The venue knows a key for 24 hours; the clocks need not agree."""
QUIET_MS: Final = 60_000
"""So long after an attempt its request may still arrive, although nobody waits for it."""


async def on_order(ctx: Context, order: OrderRequested) -> Decision:
    """Open the position that is ordered, once; close the pair's opposite one before."""
    place = await _place(ctx, order)
    if place is not None and place.state == "reserved":
        # A replay begins a failed effect anew; the book says that it may have been sent before.
        return await _settle(ctx, order, place)
    try:
        await _finish_closing(ctx, order)
        refusal = await _forbidden(ctx, order) or await _in_the_way(ctx, order)
        refusal = refusal or await _reserve(ctx, order)
    except Exception:
        ctx.effecting.not_done()
        raise
    return refusal or await _send(ctx, order)


async def on_unknown(ctx: Context, order: OrderRequested) -> Decision | None:
    """What became of an earlier attempt at `order`; None: it certainly reached nobody."""
    place = await _place(ctx, order)
    if place is None or place.state == "released":
        return None
    return await _settle(ctx, order, place)


async def _place(ctx: Context, order: OrderRequested) -> Position | None:
    desk: Desk = ctx.app
    return await desk.store.read(lambda tx: positions.get(tx, order.key))


async def _settle(ctx: Context, order: OrderRequested, place: Position) -> Decision:
    """Find out about an order that has its place: the book, then the venue, then its key again."""
    if place.state != "reserved":
        return _known(ctx, place)
    made = risk.find(await _listed(ctx.app), order, place.opened_ms)
    if made is not None:
        return _opened(ctx, order, made)
    if ctx.now_ms - place.opened_ms > RESEND_MS:
        return await _never_known(ctx, order)
    if not _is_stale(ctx):
        return await _send(ctx, order, place)
    if wait := _still_on_its_way(ctx, place):
        return wait
    await _give_back(ctx, order)
    return _expired(ctx)


async def _forbidden(ctx: Context, order: OrderRequested) -> Decision | None:
    """Whether limits, age or balance forbid it; what is over the limits raises DataError."""
    desk: Desk = ctx.app
    fault = risk.fault(order, desk.settings, ctx.event.ts)
    if fault is not None:
        raise DataError(fault)
    if _is_stale(ctx):
        return _expired(ctx)
    if await desk.store.read(lambda tx: records.is_paused(tx, desk.agent)):
        return _skip(ctx, "the balance is not above its threshold")
    return None


async def _finish_closing(ctx: Context, order: OrderRequested) -> None:
    """Close what an order began to close and could not finish, whatever becomes of this one."""
    desk: Desk = ctx.app
    held = await desk.store.read(lambda tx: positions.of_pair(tx, desk.agent, order.pair))
    if held is not None and held.state == "closing":
        await _close(desk, held, ctx.now_ms)


async def _in_the_way(ctx: Context, order: OrderRequested) -> Decision | None:
    """Make room for it: the pair's position is closed where it goes the other way."""
    desk: Desk = ctx.app
    held = await desk.store.read(lambda tx: positions.of_pair(tx, desk.agent, order.pair))
    if held is None:
        return None
    if held.ts_ms > order.timestamp_ms:
        return _skip(ctx, "late")
    if held.direction == order.direction and held.state == "open":
        return _skip(ctx, f"{order.pair} is {order.direction} already")
    if held.state == "reserved":
        raise NotNowError(f"{order.pair} is being traded", retry_after=BUSY_S)
    await _close(desk, held, ctx.now_ms)
    return None


async def _close(desk: Desk, held: Position, now_ms: int) -> None:
    """Close a position; one that is closing already is closed again, which changes nothing."""
    await desk.store.run(lambda tx: positions.closing(tx, held.key))
    closed = await desk.venue.close(held.venue_id)
    # Where the venue does not know it, its list must agree before the book forgets a position.
    if closed is None and held.venue_id in {one.position_id for one in await _listed(desk)}:
        raise RefusedError(f"the venue lists {held.venue_id} and will not close it")
    pnl, price = (closed.realised_pnl_usdc, closed.exit_price) if closed else (None, None)
    await desk.store.run(lambda tx: positions.closed(tx, held.key, pnl, price, now_ms))


async def _reserve(ctx: Context, order: OrderRequested) -> Decision | None:
    """Take its place in the book, or say why it has none."""
    desk: Desk = ctx.app
    wish = Position(
        key=order.key,
        agent=desk.agent,
        pair=order.pair,
        direction=order.direction,
        size=order.size_usdc,
        leverage=order.leverage,
        ts_ms=order.timestamp_ms,
        opened_ms=ctx.now_ms,
    )
    limit = desk.settings.max_positions
    taken = await desk.store.run(lambda tx: positions.reserve(tx, wish, limit))
    if isinstance(taken, Refused) and taken.reason != "pair_busy":
        return _skip(ctx, taken.reason)
    if isinstance(taken, Refused) or taken.again:
        raise NotNowError(f"{order.pair} is being traded", retry_after=BUSY_S)
    return None


async def _send(ctx: Context, order: OrderRequested, place: Position | None = None) -> Decision:
    """Ask the venue. `place` is the one of an earlier attempt, if there was one.

    Where it raises without giving the place back, the outcome is not known.
    """
    desk: Desk = ctx.app
    try:
        position, again = await desk.venue.open(order)
    except (RefusedError, NotNowError):
        # This attempt did nothing. An earlier one still may.
        if place is not None and (wait := _still_on_its_way(ctx, place)):
            return wait
        await _give_back(ctx, order)
        raise
    if again and not await _is_open(desk, position):
        return _spent(ctx, order, position)
    return _opened(ctx, order, position)


async def _is_open(desk: Desk, position: VenuePosition) -> bool:
    if position.status:
        return position.status == "open"
    return position.position_id in {one.position_id for one in await _listed(desk)}


async def _listed(desk: Desk) -> tuple[VenuePosition, ...]:
    """What is open at the venue. A question that is refused leaves the outcome unknown."""
    try:
        return await desk.venue.positions()
    except RefusedError as error:
        raise ApiError(str(error)) from None


def _opened(ctx: Context, order: OrderRequested, made: VenuePosition) -> Decision:
    """It is open: book and effect say so in one transaction."""
    _book(ctx, order, made)
    ctx.effecting.done(_result(made.position_id, made.entry_price))
    return Ack()


def _spent(ctx: Context, order: OrderRequested, made: VenuePosition) -> Decision:
    """Its key was used and that position is closed: this minute is spent."""
    _book(ctx, order, made)
    ctx.write(lambda tx: positions.closed(tx, order.key, None, None, ctx.now_ms))
    return _skip(ctx, "spent")


def _book(ctx: Context, order: OrderRequested, made: VenuePosition) -> None:
    venue_id, price, now_ms = made.position_id, made.entry_price, ctx.now_ms
    ctx.write(lambda tx: positions.opened(tx, order.key, venue_id, price, now_ms))


def _known(ctx: Context, place: Position) -> Decision:
    """The book knows what an earlier attempt did."""
    ctx.effecting.done(_result(place.venue_id, place.entry_price))
    return Ack() if place.state != "closed" else Ack(skipped="spent")


async def _never_known(ctx: Context, order: OrderRequested) -> Decision:
    """Too late to use the key again: nothing is open, and a person may want to know why."""
    await ctx.app.store.run(lambda tx: positions.closed(tx, order.key, None, None, ctx.now_ms))
    reason = (
        f"whether key {order.key} was ever carried out is not known; no position of it is open, "
        "and it is too old to be sent again"
    )
    return Fail(failure("state", "UnknownOutcome", reason))


async def _give_back(ctx: Context, order: OrderRequested) -> None:
    await ctx.app.store.run(lambda tx: positions.release(tx, order.key))


def _still_on_its_way(ctx: Context, place: Position) -> Decision | None:
    """A postponement while a request that nobody waits for any more may still arrive."""
    before = ctx.effecting.before
    quiet = ctx.now_ms - (before.at_ms if before else place.opened_ms)
    if quiet >= QUIET_MS:
        return None
    # The whole time again: being postponed counts as being touched.
    return Postpone(QUIET_MS / 1000 + 1, "an earlier request may still arrive")


def _is_stale(ctx: Context) -> bool:
    limit: float = ctx.app.settings.order_max_age_s
    return not ctx.allow_stale and ctx.now_ms - ctx.event.ts > limit * 1000


def _expired(ctx: Context) -> Decision:
    return Expire(f"the order is over {ctx.app.settings.order_max_age_s:g} s old")


def _skip(ctx: Context, reason: str) -> Decision:
    ctx.effecting.done({"skipped": reason})
    return Ack(skipped=reason)


def _result(position_id: str, price: Decimal | None) -> dict[str, str | None]:
    return {"position_id": position_id, "entry_price": None if price is None else str(price)}
