"""Jobs of hired agents: paid when they are done, taken over or told of when they fail."""

from __future__ import annotations

from typing import Final

from agent import records
from agent.desk import Desk
from agent.keys import escrow_key, hire_key
from agent.records import Terms
from agent.world.casefile import note
from fleet.core.decision import Ack, Decision
from fleet.core.errors import NotNowError
from fleet.core.payloads import HireRequested, JobCompleted, JobFailed, PaymentRequested
from fleet.store import ledger
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
    if agreed is None and await desk.store.read(_is_hiring):
        raise NotNowError("a hiring is under way whose job this may be", retry_after=WAIT_S)
    if await _keep(ctx, payload, "completed"):
        return _LATE
    if agreed is None:
        ctx.alert("terms_unknown", detail=f"job {payload.job_id} was not paid")
        return Ack(skipped="nobody here hired for this job")
    if agreed.amount_usdc <= 0:
        return None
    key = escrow_key(desk.agent, agreed.recipient, agreed.amount_usdc, payload.job_id)
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
    """Hire the fallback agent for a job that failed, once; a person hears of what is left."""
    desk: Desk = ctx.app
    if await _keep(ctx, payload, "failed"):
        return _LATE
    settings = desk.world.settings
    fallback, agreed = settings.fallback_agent, await _terms(desk, payload.job_id)
    if not fallback or (agreed is not None and agreed.recipient == fallback):
        reason = payload.error or "no reason given"
        ctx.alert("job_failed", key=payload.job_id, detail=f"job {payload.job_id}: {reason}")
        return None
    key = hire_key(desk.agent, fallback, payload.job_id)
    budget = agreed.amount_usdc if agreed else settings.hire_usdc
    ctx.emit("job.hire_requested", HireRequested(key, fallback, budget, payload.job_id), key=key)
    return None


async def _keep(ctx: Context, payload: JobCompleted | JobFailed, state: str) -> bool:
    """Write it down; whether something newer of this job is known."""
    name = f"job/{ctx.app.agent}/{payload.job_id}"
    late = await records.is_late(ctx, name)
    records.keep(ctx, name, {"state": state, "said": payload})
    note(ctx, job=payload.job_id)
    return late


async def _terms(desk: Desk, job: str) -> Terms | None:
    return await desk.store.read(lambda tx: records.terms(tx, desk.agent, job))


def _is_hiring(tx: Tx) -> bool:
    kind = "job.hire_requested"
    return any(
        ledger.page(tx, state=state, kind=kind, limit=1) for state in ("reserved", "unknown")
    )
