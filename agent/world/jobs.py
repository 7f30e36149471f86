"""Jobs of hired agents: paid when they are done, taken over or told of when they fail."""

from __future__ import annotations

from typing import Final

from agent import records
from agent.desk import Desk
from agent.keys import escrow_key, hire_key
from agent.records import Job, Terms
from agent.world.casefile import note
from fleet.core.decision import Ack, Decision
from fleet.core.errors import NotNowError
from fleet.core.payloads import HireRequested, JobCompleted, JobFailed, PaymentRequested
from fleet.store import effects, ledger
from fleet.store.api import Tx
from workers.context import Context

WAIT_S: Final = 5.0

_LATE: Final = Ack(skipped="a newer event of this job is known")


async def on_completed(ctx: Context, payload: JobCompleted) -> Decision | None:
    """Have the agent paid that was hired for this job, once, what was agreed.

    Raises NotNowError while a hiring is under way whose job this may be.
    """
    desk: Desk = ctx.app
    agreed = await _terms(desk, payload.job_id)
    if await _keep(ctx, payload, "completed"):
        return _LATE
    if agreed is None:
        ctx.alert("terms_unknown", detail=f"job {payload.job_id} was not paid")
        return Ack(skipped="nobody here hired for this job")
    if agreed.amount_usdc <= 0:
        return None
    key = _payment_key(desk, agreed, payload.job_id)
    wish = PaymentRequested(
        key=key,
        sender=desk.agent,
        recipient=agreed.recipient,
        amount_usdc=agreed.amount_usdc,
        job_id=payload.job_id,
        escrow_id=agreed.escrow_id,
    )
    ctx.emit("payment.release_requested", wish, key=key)
    return None


async def on_failed(ctx: Context, payload: JobFailed) -> Decision | None:
    """Hire the fallback agent for a job of ours that failed, once; else a person hears of it.

    Raises NotNowError while a hiring is under way whose job this may be.
    """
    desk: Desk = ctx.app
    job, fallback = payload.job_id, desk.world.settings.fallback_agent
    agreed = await _terms(desk, job)
    if await _keep(ctx, payload, "failed"):
        return _LATE
    obstacle = await _obstacle(desk, agreed, job)
    if agreed is None or obstacle:
        reason = payload.error or "no reason given"
        ctx.alert("job_failed", key=job, detail=f"job {job}: {obstacle}; {reason}")
        return None
    key = hire_key(desk.agent, fallback, job)
    wish = HireRequested(key, fallback, agreed.amount_usdc, job)
    ctx.emit("job.hire_requested", wish, key=key)
    return None


async def _obstacle(desk: Desk, agreed: Terms | None, job: str) -> str:
    """Why nobody is hired to take a job over; "" where somebody is."""
    if agreed is None:
        return "nobody here hired for it"
    fallback = desk.world.settings.fallback_agent
    if not fallback:
        return "there is no FALLBACK_AGENT"
    if agreed.recipient == fallback:
        return "it was the fallback agent's"
    if agreed.amount_usdc > 0:
        key = _payment_key(desk, agreed, job)
        if await desk.store.read(lambda tx: effects.get(tx, key)):
            return "it was paid, or is being paid"
    return ""


async def _keep(ctx: Context, payload: JobCompleted | JobFailed, state: str) -> bool:
    """Write it down; whether something newer of this job is known."""
    name = f"job/{ctx.app.agent}/{payload.job_id}"
    late = await records.is_late(ctx, name)
    records.keep(ctx, name, Job(state))
    note(ctx, job=payload.job_id)
    return late


async def _terms(desk: Desk, job: str) -> Terms | None:
    """What was agreed about a job; raises NotNowError while a hiring may still say so."""

    def look(tx: Tx) -> Terms | None:
        return records.terms(tx, desk.agent, job)

    agreed = await desk.store.read(look)
    if agreed is not None:
        return agreed
    if await desk.store.read(_is_hiring):
        raise NotNowError("a hiring is under way whose job this may be", retry_after=WAIT_S)
    # One that was under way at the first look may have ended before the second.
    return await desk.store.read(look)


def _payment_key(desk: Desk, agreed: Terms, job: str) -> str:
    return escrow_key(desk.agent, agreed.recipient, agreed.amount_usdc, job)


def _is_hiring(tx: Tx) -> bool:
    kind = "job.hire_requested"
    return any(
        ledger.page(tx, state=state, kind=kind, limit=1) for state in ("reserved", "unknown")
    )
