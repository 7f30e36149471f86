"""What wallet, escrow, job and candle events tell, kept as facts; late events undo nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import msgspec

from fleet.core.errors import DataError
from fleet.core.events import MAX_AHEAD_MS
from fleet.core.ulid import ulid_ms
from fleet.store import facts
from fleet.store.api import Tx
from fleet.store.facts import Fact
from workers.context import Context

LONGEST_NAME: Final = 200


class Escrow(msgspec.Struct, frozen=True):
    """The latest of an escrow."""

    state: str
    amount_usdc: Decimal


class Terms(msgspec.Struct, frozen=True):
    """What an agent was hired for: whom to pay how much; `replaces` is the job that failed."""

    recipient: str
    amount_usdc: Decimal
    replaces: str = ""
    escrow_id: str = ""


def balance(tx: Tx, agent: str) -> Decimal | None:
    """What the wallet of `agent` holds, in USDC; None where nobody has told."""
    told = facts.get(tx, f"balance/{agent}")
    return None if told is None else _money(told)


def is_paused(tx: Tx, agent: str) -> bool:
    """Whether the balance of `agent`, as far as it is known, is not above its threshold.

    An escrow that was released after the last word about the balance ends the pause: how much
    there is now, the next word will tell.
    """
    balance, threshold = facts.get(tx, f"balance/{agent}"), facts.get(tx, f"threshold/{agent}")
    if balance is None or threshold is None or _money(balance) > _money(threshold):
        return False
    released = facts.get(tx, f"resumed/{agent}")
    return released is None or released.event_id < balance.event_id


def income(tx: Tx, agent: str) -> Decimal:
    """What escrows have brought `agent`, in USDC: disputed ones do not count."""
    known = facts.under(tx, f"escrow/{agent}/")
    escrows = [msgspec.json.decode(fact.value, type=Escrow) for fact in known]
    return sum((one.amount_usdc for one in escrows if one.state == "released"), Decimal(0))


def terms(tx: Tx, agent: str, job: str) -> Terms | None:
    """What was agreed when `agent` hired for this job."""
    fact = facts.get(tx, f"hired/{agent}/{job}")
    return msgspec.json.decode(fact.value, type=Terms) if fact else None


def is_disputed(tx: Tx, agent: str, job: str, escrow: str) -> bool:
    """Whether money of this job or this escrow is in dispute, as far as is known."""
    halt = facts.get(tx, f"halt/{agent}/{job}") if job else None
    if halt is not None and halt.value == "true":
        return True
    known = facts.get(tx, f"escrow/{agent}/{escrow}") if escrow else None
    return known is not None and msgspec.json.decode(known.value, type=Escrow).state == "disputed"


async def is_late(ctx: Context, name: str) -> bool:
    """Whether a newer event than this has told of `name`."""
    known = await ctx.app.store.read(lambda tx: facts.get(tx, name))
    return known is not None and known.event_id > ctx.event.event_id


def keep(ctx: Context, name: str, value: Any) -> None:
    """Keep what this event tells under `name`, unless a newer one has told.

    Raises DataError where the name is too long, or the event's id is dated after the event.
    """
    if len(name) > LONGEST_NAME:
        raise DataError(f"{ctx.event.type}: a name of {len(name)} characters is no name")
    if ulid_ms(ctx.event.event_id) > ctx.event.ts + MAX_AHEAD_MS:
        # It would outrank every honest event after it.
        raise DataError(f"{ctx.event.type}: its id is dated after the event itself")
    fact = Fact(name, msgspec.json.encode(value).decode(), ctx.event.event_id)
    ctx.write(lambda tx: facts.put(tx, fact))


def _money(fact: Fact) -> Decimal:
    return msgspec.json.decode(fact.value, type=Decimal)
