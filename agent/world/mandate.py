"""Whether a command is one that this agent would give itself.

A command is an event, and an event may come from anybody who can write to the exchange. So money
goes nowhere but where the store and the settings, which no event can change, say that it goes.
Each function returns what is wrong, in words; "" where nothing is.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, TypeAlias

from agent import records
from agent.desk import Desk
from agent.keys import escrow_key, faucet_key, hire_key, reinvest_key
from fleet.core.errors import DataError, NotNowError, StateError
from fleet.core.events import Event
from fleet.core.payloads import (
    ClaimRequested,
    HireRequested,
    PaymentRequested,
    ReinvestRequested,
)
from fleet.store.api import Tx

Command: TypeAlias = ClaimRequested | PaymentRequested | HireRequested | ReinvestRequested

_FORGED: Final = "its key is not the one that this agent would use"


def key_of(wish: Command) -> str:
    """The effect key of a command; raises DataError for a payment whose key is not its own.

    Else a wrong payment under the key of a right one would spend that key.
    """
    if not isinstance(wish, PaymentRequested):
        return wish.key
    if wish.key != escrow_key(wish.sender, wish.recipient, wish.amount_usdc, wish.job_id):
        raise DataError("the key of a payment is made of sender, recipient, amount and job")
    return wish.key


def claim_fault(desk: Desk, wish: ClaimRequested, event: Event) -> str:
    """Claims are this agent's, one in a period, and only where it has a faucet."""
    settings = desk.world.settings
    if not settings.faucet:
        return "FAUCET is off"
    key = faucet_key(desk.agent, event.ts, settings.faucet_every_s * 1000)
    return "" if wish.key == key else _FORGED


def payment_fault(tx: Tx, desk: Desk, wish: PaymentRequested) -> str:
    """Paid is what was agreed when hiring, to whom it was agreed, unless the job failed since."""
    agreed = records.terms(tx, desk.agent, wish.job_id)
    if wish.sender != desk.agent or agreed is None:
        return "this agent hired nobody for that job"
    asked = (wish.recipient, wish.amount_usdc, wish.escrow_id)
    if wish.amount_usdc <= 0 or asked != (agreed.recipient, agreed.amount_usdc, agreed.escrow_id):
        return f"{agreed.amount_usdc} USDC to {agreed.recipient} was agreed, and nothing else"
    if records.job_state(tx, desk.agent, wish.job_id) == "failed":
        return "the job failed after it was done"
    return ""


def hire_fault(tx: Tx, desk: Desk, wish: HireRequested, event: Event, now_ms: int) -> str:
    """Hired is the fallback agent for a job that failed, or whom the policy says for income."""
    settings = desk.world.settings
    if wish.job_id:
        agreed = records.terms(tx, desk.agent, wish.job_id)
        if agreed is None or wish.escrow_id:
            return "this agent hired nobody for the job that is to be taken over"
        hired, most = settings.fallback_agent, agreed.amount_usdc
    else:
        if settings.income_policy != "hire":
            return f"INCOME_POLICY is {settings.income_policy}"
        income = _income(tx, desk, wish.escrow_id, event, now_ms)
        hired, most = settings.hire_agent, min(settings.hire_usdc, income)
    if wish.agent != hired or not 0 < wish.budget_usdc <= most:
        return f"to hire is {hired or 'nobody'}, for {most} USDC at most"
    key = hire_key(desk.agent, hired, wish.job_id or wish.escrow_id)
    return "" if wish.key == key else _FORGED


def reinvest_fault(tx: Tx, desk: Desk, wish: ReinvestRequested, event: Event, now_ms: int) -> str:
    """Reinvested is the income of an escrow, once, where the policy says so."""
    policy = desk.world.settings.income_policy
    if policy != "reinvest":
        return f"INCOME_POLICY is {policy}"
    income = _income(tx, desk, wish.escrow_id, event, now_ms)
    if not 0 < wish.amount_usdc <= income:
        return f"escrow {wish.escrow_id} brought {income} USDC"
    return "" if wish.key == reinvest_key(desk.agent, wish.escrow_id) else _FORGED


def _income(tx: Tx, desk: Desk, escrow: str, event: Event, now_ms: int) -> Decimal:
    """What an escrow brought. Raises NotNowError, later StateError, while nobody has told."""
    known = records.escrow(tx, desk.agent, escrow)
    if known is not None:
        return known.amount_usdc
    missing = f"no income of escrow {escrow} is booked"
    if now_ms - event.ts < records.COMMIT_MS:
        raise NotNowError(missing, retry_after=0.5)
    raise StateError(missing)
