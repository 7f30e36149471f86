"""The book beside the venue's list: what differs is repaired where that is safe, else told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from agent.book import adopt
from agent.desk import Desk
from agent.keys import close_key
from agent.wire import VenuePosition
from fleet.core.decision import Ack, Decision
from fleet.core.payloads import CloseRequested
from fleet.store import positions
from fleet.store.api import Tx
from fleet.store.positions import Position
from workers.context import Context

QUIET_MS: Final = 60_000
"""What changed within this time is in somebody's hands."""
STUCK_MS: Final = 15 * 60_000
"""What has been reserved, or closing, for so long waits for nobody any more."""
ASKED_MS: Final = 6 * 60 * 60_000
"""So long the venue is asked what a position gained that was closed in doubt."""


class Found(msgspec.Struct, frozen=True):
    """What differs: `gone` and `came` can be repaired, the rest is for a person, in words.

    `gone` is open or closing in the book and no more at the venue.
    """

    gone: tuple[Position, ...] = ()
    came: tuple[tuple[Position, VenuePosition], ...] = ()
    told: tuple[tuple[str, str], ...] = ()
    """A name for what it is about, and the sentence."""


def compare(
    before: Iterable[Position],
    listed: Sequence[VenuePosition],
    after: Iterable[Position],
    now_ms: int,
) -> Found:
    """What differs between the venue's list and the book, read before and after it.

    Only what both readings of the book say alike counts: the rest was being traded meanwhile.
    """
    old = {one.key: one for one in before}
    book = [one for one in after if old.get(one.key) == one]
    by_id = {one.position_id: one for one in listed}
    by_key = {one.idempotency_key: one for one in listed if one.idempotency_key}
    quiet = [one for one in book if now_ms - one.opened_ms >= QUIET_MS]
    reserved = [one for one in quiet if one.state == "reserved"]
    waited = [one for one in reserved if now_ms - one.opened_ms >= STUCK_MS]
    is_open = [one for one in quiet if one.state == "open"]
    closing = [one for one in book if one.state == "closing"]
    dead = [one for one in closing if now_ms - one.closing_ms >= STUCK_MS]
    known = {one.venue_id for one in [*old.values(), *after] if one.venue_id}
    keys = {one.key for one in [*old.values(), *after]}
    strange = [
        one for one in listed if one.position_id not in known and one.idempotency_key not in keys
    ]
    return Found(
        gone=tuple(one for one in [*is_open, *dead] if one.venue_id not in by_id),
        came=tuple((one, by_key[one.key]) for one in waited if one.key in by_key),
        told=(
            *(_stuck(one) for one in waited if one.key not in by_key),
            *(_unclosed(one) for one in dead if one.venue_id in by_id),
            *(_other(one, by_id[one.venue_id]) for one in is_open if _differs(one, by_id)),
            *(_strange(one) for one in strange if _is_old(one, now_ms)),
        ),
    )


async def on_reconcile(ctx: Context, _: dict[str, Any]) -> Decision | None:
    """Compare the book with the venue; repair the book where the venue alone can know."""
    desk: Desk = ctx.app
    before = await _held(desk)
    listed = await desk.venue.positions()
    found = compare(before, listed, await _held(desk), ctx.now_ms)
    doubtful = await _asked_about(desk, ctx.now_ms)
    for one in doubtful:
        _ask(ctx, one, "what it gained is not known")
    for one in found.gone:
        _close(ctx, one)
    for one, made in found.came:
        _open(ctx, one, made)
    for about, sentence in found.told:
        ctx.alert("book_differs", key=about, detail=sentence)
    if doubtful or found != Found():
        return None
    return Ack(skipped="the book and the venue agree")


async def _held(desk: Desk) -> list[Position]:
    return await desk.store.read(lambda tx: positions.open_positions(tx, desk.book))


async def _asked_about(desk: Desk, now_ms: int) -> list[Position]:
    """Those that were closed in doubt lately, and that the venue may still know."""
    found = await desk.store.read(lambda tx: positions.doubtful(tx, desk.book))
    return [one for one in found if one.venue_id and now_ms - one.closed_ms < ASKED_MS]


def _close(ctx: Context, one: Position) -> None:
    """The venue lists it no more: close it, which tells what it gained, and ends it for sure.

    A list may be wrong for a moment; what the book forgets because of it would stay open.
    """
    _ask(ctx, one, "the venue lists it no more")
    detail = (
        f"the venue does not list {one.pair} {one.direction} ({one.venue_id}, key {one.key})"
        " any more; it is closed, and booked with what the venue says it gained"
    )
    ctx.alert("book_repaired", key=one.key, detail=detail)


def _ask(ctx: Context, one: Position, why: str) -> None:
    # A key of its own each time: that an earlier closing was refused is no reason not to ask.
    key = close_key(f"{one.venue_id}@{ctx.event.ts}")
    ctx.emit("order.close_requested", CloseRequested(key, one.key, one.pair, why), key=key)


def _open(ctx: Context, one: Position, made: VenuePosition) -> None:
    """The venue has what the book only reserved."""

    def write(tx: Tx) -> None:
        if positions.get(tx, one.key) == one:
            adopt(tx, one, made, ctx.now_ms)

    ctx.write(write)
    detail = f"{one.pair} {one.direction} ({made.position_id}, key {one.key}) is open at the venue"
    ctx.alert("book_repaired", key=one.key, detail=detail)


def _differs(one: Position, by_id: dict[str, VenuePosition]) -> bool:
    made = by_id.get(one.venue_id)
    if made is None:
        return False
    return made.pair not in ("", one.pair) or made.direction not in ("", one.direction)


def _is_old(one: VenuePosition, now_ms: int) -> bool:
    return one.opened_at_ms is None or now_ms - one.opened_at_ms >= QUIET_MS


def _stuck(one: Position) -> tuple[str, str]:
    return one.key, (
        f"{one.pair} is reserved under key {one.key}, but the venue has no such position;"
        " replay its order, or resolve its effect"
    )


def _unclosed(one: Position) -> tuple[str, str]:
    return one.key, (
        f"{one.pair} {one.direction} ({one.venue_id}, key {one.key}) was to be closed and is still"
        f" there; say `fleet effects close {one.key}`"
    )


def _other(one: Position, made: VenuePosition) -> tuple[str, str]:
    return one.key, (
        f"{made.position_id} is {one.pair} {one.direction} in the book and"
        f" {made.pair} {made.direction} at the venue"
    )


def _strange(made: VenuePosition) -> tuple[str, str]:
    key = made.idempotency_key
    under = f" under key {key}" if key else ""
    return made.position_id, (
        f"the venue has {made.pair} {made.direction} ({made.position_id}){under};"
        " the book has no such position; if it is not to stay, say"
        f" `fleet effects close {made.position_id} --unbooked`"
    )
