"""What to do next about an order, by what is known of it. Pure.

    nothing begun:  a closing to finish · limits · age · mode · pause · the pair's position
                    ──► close · reserve · skip · expire · wait
    its place is reserved now:     send, where the mode still allows it
    it was reserved before:        look at the venue first
                    ──► found: it is open · not found: send again, let go of it, or never know
    sent:           open · spent · refused · no answer

A step that is no end changes what is known; then it is asked again.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from agent.keys import RESEND_MS
from agent.modes import NO_WRITES, Standing, may_close
from agent.risk import find, is_strange
from agent.wire import VenuePosition
from fleet.core.breaker import BreakerState
from fleet.core.decision import Postpone, Retry
from fleet.core.errors import RefusedError
from fleet.core.failure import Failure
from fleet.core.payloads import OrderRequested
from fleet.store.positions import Position

ATTEMPTS: Final = 4
"""Deliveries of an order that may send it. One more asks what became of the last."""
BUSY_S: Final = 0.5
RECOVERY_S: Final = 5.0


class Sent(msgspec.Struct, frozen=True):
    """The venue's answer; `again`: it knew the key. `position` None: it told an id only."""

    position: VenuePosition | None
    again: bool = False


class Known(msgspec.Struct, frozen=True):
    """What is known of an order in one attempt.

    `place` is its own in the book, `is_new` where this attempt reserved it; `held` is what has
    the pair's place, `others` are the venue's ids of all else in the book. `fault` breaks a
    limit. A request may still arrive `quiet_ms` after it was sent. `listed` is what the venue
    says is open, `unheard` why it could not be asked. `sent`, `refused` and `lost` are what came
    of sending it.
    """

    order: OrderRequested
    now_ms: int
    quiet_ms: int
    standing: Standing
    write_api: BreakerState
    attempt: int = 1
    is_stale: bool = False
    is_paused: bool = False
    fault: str | None = None
    place: Position | None = None
    is_new: bool = False
    held: Position | None = None
    others: frozenset[str] = frozenset()
    no_place: str = ""
    listed: tuple[VenuePosition, ...] | None = None
    unheard: str = ""
    sent: Sent | None = None
    refused: Exception | None = None
    lost: Failure | None = None


class Look(msgspec.Struct, frozen=True):
    """Ask the venue what is open."""


class Close(msgspec.Struct, frozen=True):
    """Close what has the pair's place."""

    position: Position


class Reserve(msgspec.Struct, frozen=True):
    """Take a place in the book."""


class Send(msgspec.Struct, frozen=True):
    """Ask the venue to open it, under its key."""


class Opened(msgspec.Struct, frozen=True):
    """It is open: book and effect say so."""

    position: VenuePosition


class Remember(msgspec.Struct, frozen=True):
    """An earlier attempt did it; the book knows."""

    place: Position


class Spent(msgspec.Struct, frozen=True):
    """Its key was used, and that position is closed."""

    position: VenuePosition | None


class Skip(msgspec.Struct, frozen=True):
    """Nothing is to be done, and why."""

    reason: str


class Forbid(msgspec.Struct, frozen=True):
    """It is over the limits."""

    fault: str


class Late(msgspec.Struct, frozen=True):
    """It is too old to be traded."""


End: TypeAlias = Skip | Postpone | Forbid | Late | Exception | Failure


class GiveUp(msgspec.Struct, frozen=True):
    """Give its place back, then `end` in one of these, or in what the venue refused with."""

    end: End


class NeverKnown(msgspec.Struct, frozen=True):
    """Too late to use the key again, and nothing is open: a person may want to know why."""


class Strange(msgspec.Struct, frozen=True):
    """The venue has something else under its key: a person must look."""

    position: VenuePosition


Step: TypeAlias = (
    Look | Close | Reserve | Send
    | Opened | Remember | Spent | Skip | Postpone | Forbid | Late | GiveUp | Retry | NeverKnown
    | Strange
)  # fmt: skip


def next_step(known: Known) -> Step:
    """The next step; the same for the same knowledge."""
    place = known.place
    if place is None or place.state == "released":
        return _fresh(known)
    if place.state != "reserved":
        return Remember(place)
    if known.unheard:
        return Postpone(RECOVERY_S, f"what became of it cannot be asked: {known.unheard}")
    return _tried(known) or (_first(known) if known.is_new else _begun_before(known, place))


def _tried(known: Known) -> Step | None:
    """What follows from sending it in this attempt, if it was sent."""
    if known.refused is not None:
        return _unless_on_its_way(known) or GiveUp(known.refused)
    if known.lost is not None:
        # The last attempt has no answer: back once none can come, to ask and not to send.
        return Retry(known.quiet_ms / 1000 + 1, known.lost)
    return None if known.sent is None else _answered(known, known.sent)


def _fresh(known: Known) -> Step:
    """Nothing was begun."""
    held = known.held
    if held is not None and held.state == "closing":
        return Close(held)
    return _forbidden(known) or _in_the_way(known) or _may_not_open(known) or _place(known)


def _forbidden(known: Known) -> Step | None:
    """What limits, age, mode and balance say."""
    if known.fault is not None:
        return Forbid(known.fault)
    if known.is_stale:
        return Late()
    if not may_close(known.standing.mode):
        return Skip(_mode(known))
    return _paused() if known.is_paused else None


def _in_the_way(known: Known) -> Step | None:
    """What becomes of the position that has the pair's place: a flip closes before it opens."""
    held, order = known.held, known.order
    if held is None:
        return None
    if held.ts_ms > order.timestamp_ms:
        return Skip("late")
    if held.state == "reserved":
        return _busy(order)
    if held.direction == order.direction:
        return Skip(f"{order.pair} is {order.direction} already")
    return Close(held)


def _place(known: Known) -> Step:
    match known.no_place:
        case "":
            return Reserve()
        case "pair_busy":
            return _busy(known.order)
        case reason:
            return Skip(reason)


def _first(known: Known) -> Step:
    """Its place was taken just now: what came before may have taken longer than the mode stood."""
    refusal = _may_not_open(known)
    return Send() if refusal is None else GiveUp(refusal)


def _begun_before(known: Known, place: Position) -> Step:
    """An earlier attempt may have reached the venue: it is asked before anything else."""
    if known.listed is None:
        return Look()
    made = find(known.listed, place)
    if made is not None:
        return _found(made, known)
    if known.now_ms - place.opened_ms > RESEND_MS:
        return NeverKnown()
    end = _no_more(known, place)
    if end is not None:
        return _unless_on_its_way(known) or GiveUp(end)
    return _may_not_open(known) or Send()


def _no_more(known: Known, place: Position) -> Forbid | Late | Failure | Skip | Postpone | None:
    """Why it is not sent again, if it is not."""
    # An operator may have edited it, or set other limits, since its place was taken.
    if known.fault is not None:
        return Forbid(known.fault)
    if known.is_stale:
        return Late()
    if known.attempt > ATTEMPTS:
        return _not_carried_out()
    if known.is_paused:
        return _paused()
    if not _is_for(place, known.order):
        return Postpone(BUSY_S, "its place was taken for another order")
    refusal = _may_not_open(known)
    return refusal if isinstance(refusal, Skip) else None


def _is_for(place: Position, order: OrderRequested) -> bool:
    """Whether a place was taken for this order as it is now."""
    taken = (place.pair, place.direction, place.size, place.leverage)
    return taken == (order.pair, order.direction, order.size_usdc, order.leverage)


def _found(made: VenuePosition, known: Known) -> Step:
    return Strange(made) if _is_strange(made, known) else Opened(made)


def _over(made: VenuePosition, known: Known) -> Step:
    """Its key was used and that position is closed; for another order is as good as refused."""
    if not _is_strange(made, known):
        return Spent(made)
    used = RefusedError(f"key {known.order.key} was used for another order")
    return _unless_on_its_way(known) or GiveUp(used)


def _is_strange(made: VenuePosition, known: Known) -> bool:
    return made.position_id in known.others or is_strange(made, known.order)


def _answered(known: Known, sent: Sent) -> Step:
    made = sent.position
    if made is not None and (not sent.again or made.status == "open"):
        return _found(made, known)
    if made is not None and made.status == "closed":
        return _over(made, known)
    if known.listed is None:
        return Look()
    found = find(known.listed, known.place) if known.place else None
    if found is not None:
        return _found(found, known)
    if not sent.again:
        return Postpone(BUSY_S, "the venue does not list it yet")
    return _over(made, known) if made is not None else _unless_on_its_way(known) or Spent(None)


def _may_not_open(known: Known) -> Skip | Postpone | None:
    """Why the mode forbids opening, if it does. The breaker's probe is let through."""
    standing = known.standing
    if standing.mode == "full":
        return None
    if standing.mode != "read_only" or standing.reason != NO_WRITES:
        return Skip(_mode(known))
    return Postpone(RECOVERY_S, _mode(known)) if known.write_api == "closed" else None


def _unless_on_its_way(known: Known) -> Postpone | None:
    """While a request that nobody waits for any more may still arrive, the place stays taken."""
    place = known.place
    left_ms = place.asked_ms + known.quiet_ms - known.now_ms if place else 0
    if known.is_new or left_ms <= 0:
        return None
    return Postpone(left_ms / 1000 + 1, "an earlier request may still arrive")


def _busy(order: OrderRequested) -> Postpone:
    return Postpone(BUSY_S, f"{order.pair} is being traded")


def _paused() -> Skip:
    return Skip("the balance is not above its threshold")


def _mode(known: Known) -> str:
    return f"mode {known.standing.mode}: {known.standing.reason}"


def _not_carried_out() -> Failure:
    return Failure(
        "network", "NotCarriedOut", f"the venue did not carry it out in {ATTEMPTS} attempts", ""
    )
