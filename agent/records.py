"""What wallet, escrow, job and candle events tell, kept as facts; late events undo nothing."""

from __future__ import annotations

from decimal import Context as Precision
from decimal import Decimal
from functools import reduce
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
COMMIT_MS: Final = 60_000
"""What a handler emits comes before what it writes. So long after it that is there, or never."""
MOST_ESCROWS: Final = 100
"""A job with so many escrows is taken for disputed: nobody keeps them apart."""
_EXACT: Final = Precision(prec=60)


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


class Job(msgspec.Struct, frozen=True):
    """The latest of a job."""

    state: str


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
    amounts = (one.amount_usdc for one in escrows if one.state == "released")
    return reduce(_EXACT.add, amounts, Decimal(0))


def terms(tx: Tx, agent: str, job: str) -> Terms | None:
    """What was agreed when `agent` hired for this job."""
    fact = facts.get(tx, f"hired/{agent}/{job}")
    return msgspec.json.decode(fact.value, type=Terms) if fact else None


def agree(tx: Tx, agent: str, job: str, agreed: Terms, event_id: str) -> None:
    """Keep what was agreed about a job; what was once agreed stands for ever.

    Raises DataError where the job has other terms, or where its name is too long.
    """
    known = terms(tx, agent, job)
    if known is not None and known != agreed:
        raise DataError(f"job {job} is known already, under other terms; those stand")
    name = _sound(f"hired/{agent}/{job}", "job.hire_requested")
    facts.put(tx, Fact(name, msgspec.json.encode(agreed).decode(), event_id))


def job_state(tx: Tx, agent: str, job: str) -> str:
    """The newest word about a job: completed, failed, or "" where there is none."""
    fact = facts.get(tx, f"job/{agent}/{job}")
    return msgspec.json.decode(fact.value, type=Job).state if fact else ""


def escrow(tx: Tx, agent: str, name: str) -> Escrow | None:
    """The newest word about an escrow."""
    fact = facts.get(tx, f"escrow/{agent}/{name}") if name else None
    return msgspec.json.decode(fact.value, type=Escrow) if fact else None


def tie(tx: Tx, agent: str, job: str, name: str, event_id: str) -> None:
    """Note that an escrow stands for a job."""
    known = _tied(tx, agent, job)
    if name in known or len(known) >= MOST_ESCROWS:
        return
    value = msgspec.json.encode([*known, name]).decode()
    facts.keep(tx, Fact(_sound(f"escrows/{agent}/{job}", "escrow"), value, event_id))


def is_disputed(tx: Tx, agent: str, job: str, name: str) -> bool:
    """Whether this escrow, or any that stands for this job, is in dispute, as far as is known."""
    tied = _tied(tx, agent, job) if job else []
    if len(tied) >= MOST_ESCROWS:
        return True
    found = (escrow(tx, agent, each) for each in (name, *tied))
    return any(each is not None and each.state == "disputed" for each in found)


async def is_late(ctx: Context, name: str) -> bool:
    """Whether a newer event than this has told of `name`."""
    known = await ctx.app.store.read(lambda tx: facts.get(tx, name))
    return known is not None and known.event_id > ctx.event.event_id


def keep(ctx: Context, name: str, value: Any) -> None:
    """Keep what this event tells under `name`, unless a newer one has told.

    Raises DataError where the name is too long, or the event's id is dated after the event.
    """
    _sound(name, ctx.event.type)
    if ulid_ms(ctx.event.event_id) > ctx.event.ts + MAX_AHEAD_MS:
        # It would outrank every honest event after it.
        raise DataError(f"{ctx.event.type}: its id is dated after the event itself")
    fact = Fact(name, msgspec.json.encode(value).decode(), ctx.event.event_id)
    ctx.write(lambda tx: facts.put(tx, fact))


def _tied(tx: Tx, agent: str, job: str) -> list[str]:
    fact = facts.get(tx, f"escrows/{agent}/{job}")
    return msgspec.json.decode(fact.value, type=list[str]) if fact else []


def _sound(name: str, what: str) -> str:
    if len(name) > LONGEST_NAME:
        raise DataError(f"{what}: a name of {len(name)} characters is no name")
    return name


def _money(fact: Fact) -> Decimal:
    return msgspec.json.decode(fact.value, type=Decimal)
