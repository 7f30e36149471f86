"""Effect keys: the same for the same intent, through redelivery, retry, edit and replay."""

from __future__ import annotations

import hashlib
from decimal import Decimal, InvalidOperation, localcontext
from typing import Final

from fleet.core.errors import DataError
from fleet.core.payloads import MONEY_LIMIT

MINUTE_MS: Final = 60_000
RESEND_MS: Final = 23 * 60 * 60 * 1000
"""The platform knows a key for 24 hours; the clocks need not agree."""


def trade_key(agent: str, pair: str, direction: str, ts_ms: int) -> str:
    """The key of an order: one for each agent, pair, direction and minute of `ts_ms`; 32 digits."""
    return _digest(f"trade:{agent}:{pair}:{direction}:{ts_ms // MINUTE_MS}")


def close_key(position_id: str) -> str:
    """The key of closing a position, by the venue's id of it; 32 hex digits."""
    return _digest(f"close:{position_id}")


def faucet_key(agent: str, ts_ms: int, every_ms: int) -> str:
    """The key of claiming the faucet: one for each agent and period of `ts_ms`; 32 hex digits."""
    return _digest(f"faucet:{agent}:{ts_ms // every_ms}")


def hire_key(agent: str, hired: str, cause: str) -> str:
    """The key of hiring for one cause, a job that failed or an escrow's income; 32 hex digits."""
    return _digest(f"hire:{agent}:{hired}:{cause}")


def reinvest_key(agent: str, escrow: str) -> str:
    """The key of reinvesting the income of an escrow; 32 hex digits."""
    return _digest(f"reinvest:{agent}:{escrow}")


def escrow_key(sender: str, recipient: str, amount: Decimal, job: str) -> str:
    """The key of paying for a job: `escrow:{from}:{to}:{cents}:{job}`.

    Raises DataError where the amount is not a positive number of whole cents, where a colon in a
    name would let two payments share a key, or where the job is named by what no key can hold.
    """
    if not job.isprintable():
        raise DataError("the name of a job has signs that cannot be printed")
    if ":" in sender or ":" in recipient:
        raise DataError("the name of an agent has a colon")
    return f"escrow:{sender}:{recipient}:{_cents(amount)}:{job}"


def _cents(amount: Decimal) -> int:
    try:
        with localcontext() as exact:
            exact.prec = 40
            usable = 0 < amount < MONEY_LIMIT and amount * 100 == int(amount * 100)
    except InvalidOperation:  # NaN compares with nothing
        usable = False
    if not usable:
        raise DataError("an escrow is a positive amount in whole cents")
    return int(amount * 100)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
