"""Orders, each carried out once, whatever happens on the way.

`agent.orders` says what comes next, by what is known; here it is done, and what came of it is
known then. Nothing is retried here: the attempts of the delivery are the attempts of the order.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from agent import book, records, risk
from agent import orders as to
from agent.closing import close
from agent.desk import SERVICE, Desk
from agent.keys import close_key
from agent.orders import ATTEMPTS, Known, Sent, next_step
from agent.venue import listed
from agent.wire import VenuePosition
from fleet import clock
from fleet.core.decision import Ack, Decision, Expire, Fail, Postpone, Retry
from fleet.core.errors import (
    ApiError,
    DataError,
    LogicError,
    NetworkError,
    NotNowError,
    RefusedError,
)
from fleet.core.failure import Failure, describe, failure
from fleet.core.payloads import CloseRequested, OrderRequested
from fleet.store import positions
from fleet.store.api import Tx
from fleet.store.positions import Position, Refused
from workers.context import Context


async def on_order(ctx: Context, order: OrderRequested) -> Decision:
    """Open the position that is ordered, once; close the pair's opposite one before."""
    ctx.effecting.mode = ctx.app.mode_text
    if order.paper and not ctx.app.settings.paper:
        return Ack(skipped="it is on paper, and this worker trades real money")
    known = await _known(ctx, order)
    try:
        return await _carry_out(ctx, known)
    except (ApiError, NetworkError) as error:
        if ctx.attempt < ATTEMPTS:
            raise
        return Fail(describe(error))


async def on_unknown(ctx: Context, order: OrderRequested) -> Decision | None:
    """What became of an earlier attempt at `order`; None: it certainly reached nobody."""
    desk: Desk = ctx.app
    place = await desk.store.read(lambda tx: positions.get(tx, order.key))
    if place is None or place.state == "released":
        return None
    return await on_order(ctx, order)


async def _carry_out(ctx: Context, known: Known) -> Decision:
    """Step after step, until one is an end."""
    desk: Desk = ctx.app
    while True:
        # A step may have waited for the venue, and all replicas may be in another mode since.
        write_api = desk.guard.state(ctx.now_ms)
        known = _with(known, standing=desk.watch.standing, write_api=write_api)
        step = next_step(known)
        try:
            match step:
                case to.Look():
                    known = await _look(ctx, known)
                case to.Close(position=held):
                    await close(ctx.app, held, ctx, known.order)
                    known = _with(known, held=None)
                case to.Reserve():
                    known = await _reserve(ctx, known)
                case to.Send():
                    known = await _send(ctx, known)
                case _:
                    return await _end(ctx, known, step)
        except Exception:
            if known.place is None:
                ctx.effecting.not_done()
            raise


async def _known(ctx: Context, order: OrderRequested) -> Known:
    """What the store and the settings tell of an order."""
    desk: Desk = ctx.app
    settings = desk.settings

    def look(tx: Tx) -> tuple[Position | None, list[Position], bool]:
        is_paused = not settings.paper and records.is_paused(tx, desk.agent)
        live = positions.open_positions(tx, desk.book)
        return positions.get(tx, order.key), live, is_paused

    place, live, is_paused = await desk.store.read(look)
    if place is not None:
        book.must_be_in(place, desk.book)
    age_ms = ctx.now_ms - ctx.event.ts
    return Known(
        order=order,
        now_ms=ctx.now_ms,
        quiet_ms=int(settings.quiet_s * 1000),
        standing=desk.watch.standing,
        write_api=desk.guard.state(ctx.now_ms),
        attempt=ctx.attempt,
        is_stale=not ctx.allow_stale and age_ms > settings.order_max_age_s * 1000,
        is_paused=is_paused,
        fault=risk.fault(order, settings, ctx.event.ts),
        place=None if place is None or place.state == "released" else place,
        held=next((one for one in live if one.pair == order.pair), None),
        others=frozenset(one.venue_id for one in live if one.key != order.key) - {""},
    )


async def _look(ctx: Context, known: Known) -> Known:
    """Ask the venue what is open, or learn that it cannot be asked.

    To ask costs no attempt once none is left: parked, the order would keep its place until a
    person came.
    """
    try:
        return _with(known, listed=await listed(ctx.app.venue))
    except (NetworkError, ApiError) as error:
        if ctx.attempt < ATTEMPTS:
            raise
        return _with(known, unheard=str(error))


async def _reserve(ctx: Context, known: Known) -> Known:
    """Take its place in the book, or learn why it has none."""
    desk, order = ctx.app, known.order
    wish = Position(
        key=order.key,
        agent=desk.book,
        pair=order.pair,
        direction=order.direction,
        size=order.size_usdc,
        leverage=order.leverage,
        ts_ms=order.timestamp_ms,
        opened_ms=ctx.now_ms,
        asked_ms=_by_now(ctx),
    )
    limit = desk.settings.max_positions
    taken = await desk.store.run(lambda tx: positions.reserve(tx, wish, limit))
    if isinstance(taken, Refused):
        return _with(known, no_place=taken.reason)
    if taken.again:
        return _with(known, no_place="pair_busy")
    return _with(known, place=taken.position, is_new=True)


async def _send(ctx: Context, known: Known) -> Known:
    """Ask the venue. Where it raises, the outcome is not known, and the place stays taken."""
    desk, key = ctx.app, known.order.key
    try:
        async with desk.guard.call(ctx.effecting.holder, _by_now(ctx)):
            if not known.is_new:
                asked_ms = _by_now(ctx)
                await desk.store.run(lambda tx: positions.asked(tx, key, asked_ms))
            opened = await desk.venue.open(known.order)
    except (RefusedError, NotNowError) as error:
        return _with(known, refused=error, listed=None)
    except (NetworkError, ApiError) as error:
        if ctx.attempt < ATTEMPTS:
            raise
        return _with(known, lost=describe(error))
    return _with(known, sent=Sent(opened.position, opened.again), listed=None)


async def _end(ctx: Context, known: Known, step: to.Step) -> Decision:
    """Carry an end out in the book, and say it as a decision."""
    match step:
        case to.Opened(position=made):
            _book(ctx, known.order, made)
            decision = _done(ctx, made.position_id, made.entry_price)
        case to.Remember(place=place) if place.state != "closed":
            decision = _done(ctx, place.venue_id, place.entry_price)
        case to.Remember():
            decision = _skip(ctx, "spent")
        case to.Spent(position=position):
            decision = _spent(ctx, known, position)
        case to.GiveUp(end=end):
            decision = await _give_up(ctx, known, end)
        case to.NeverKnown():
            decision = await _never_known(ctx, known)
        case to.Strange(position=made):
            decision = await _strange(ctx, known, made)
        case _:
            decision = _plain(ctx, step)
    return decision


def _plain(ctx: Context, step: to.Step | to.End) -> Decision:
    """An end that leaves the book as it is. Raises what the venue refused with."""
    match step:
        case to.Skip(reason=reason):
            return _skip(ctx, reason)
        case Postpone() | Retry():
            return step
        case to.Late():
            return Expire(f"the order is over {ctx.app.settings.order_max_age_s:g} s old")
        case to.Forbid(fault=fault):
            ctx.effecting.not_done()
            raise DataError(fault)
        case Failure():
            return Fail(step)
        case Exception():
            raise step
        case _:
            raise LogicError(f"{type(step).__name__} is no end of an order")


async def _give_up(ctx: Context, known: Known, end: to.End) -> Decision:
    """Give its place back; whatever was tried before, it certainly did nothing."""
    await ctx.app.store.run(lambda tx: positions.release(tx, known.order.key))
    ctx.effecting.before = None
    ctx.effecting.not_done()
    return _plain(ctx, end)


def _spent(ctx: Context, known: Known, made: VenuePosition | None) -> Decision:
    """Its key was used and that position is closed: this minute is spent."""
    order, now_ms = known.order, ctx.now_ms
    if made is None:
        place = _place(known)
        ctx.write(lambda tx: book.doubt(tx, place, SERVICE, now_ms, order.price))
        return _skip(ctx, "spent")
    # Closing it once more tells what it gained, and ends it for sure.
    _book(ctx, order, made)
    ctx.write(lambda tx: positions.closing(tx, order.key, now_ms))
    key = close_key(f"{made.position_id}@{ctx.event.ts}")
    wish = CloseRequested(key, order.key, order.pair, "the venue says that it is closed")
    ctx.emit("order.close_requested", wish, key=key)
    return _skip(ctx, "spent")


async def _never_known(ctx: Context, known: Known) -> Decision:
    """Too late to send it again: give its place back, and count it as closed in doubt."""
    order, place, now_ms = known.order, _place(known), ctx.now_ms
    await ctx.app.store.run(lambda tx: book.doubt(tx, place, SERVICE, now_ms, order.price))
    reason = (
        f"whether key {order.key} was ever carried out is not known; no position of it is open, "
        "and it is too old to be sent again"
    )
    return Fail(failure("state", "UnknownOutcome", reason))


async def _strange(ctx: Context, known: Known, made: VenuePosition) -> Decision:
    """The venue has something else under its key. It is ours, so a shutdown must find it open."""
    order, place, now_ms = known.order, _place(known), ctx.now_ms
    reason = f"the venue has {made.position_id} under {order.key}, and not as ordered"
    if made.position_id in known.others:
        reason = f"the venue has {made.position_id} under {order.key}, and another order has it"
    else:
        await ctx.app.store.run(lambda tx: book.adopt(tx, place, made, now_ms))
    await ctx.app.alert(ctx, "book_differs", key=order.key, detail=reason)
    return Fail(failure("data", "StrangePosition", reason))


def _place(known: Known) -> Position:
    """Its place in the book. Raises LogicError where it has none."""
    if known.place is None:
        raise LogicError(f"order {known.order.key} has no place in the book")
    return known.place


def _book(ctx: Context, order: OrderRequested, made: VenuePosition) -> None:
    venue_id, price, now_ms = made.position_id, made.entry_price, ctx.now_ms
    ctx.write(lambda tx: positions.opened(tx, order.key, venue_id, price, now_ms))


def _done(ctx: Context, position_id: str, price: Decimal | None) -> Decision:
    entry = None if price is None else str(price)
    ctx.effecting.done({"position_id": position_id, "entry_price": entry})
    return Ack()


def _skip(ctx: Context, reason: str) -> Decision:
    ctx.effecting.done({"skipped": reason})
    return Ack(skipped=reason)


def _by_now(ctx: Context) -> int:
    """The time, for what must not be dated too early: an attempt may be half a minute old."""
    return max(ctx.now_ms, clock.now_ms())


def _with(known: Known, **learned: Any) -> Known:
    return msgspec.structs.replace(known, **learned)
