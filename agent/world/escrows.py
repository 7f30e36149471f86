"""Escrows: income that is booked, and disputes that halt what depends on them."""

from __future__ import annotations

import asyncio
import errno
from typing import Final

from agent import records
from agent.desk import Desk
from agent.records import Escrow
from agent.world import wallet
from agent.world.casefile import note
from agent.world.evidence import gather, write_file
from fleet.core.decision import Ack, Decision
from fleet.core.errors import DataError, NotNowError, ResourceError
from fleet.core.payloads import EscrowDisputed, EscrowReleased, EvidenceRequested
from workers.context import Context

TRIES: Final = 3
"""Attempts at the file, after which the alert goes out without it."""
LONGEST_REASON: Final = 300
"""Characters of a reason that travel on, so that the alert has room for the rest."""

_LATE: Final = Ack(skipped="a newer event of this escrow is known")


async def on_released(ctx: Context, payload: EscrowReleased) -> Decision | None:
    """Book the income of an escrow, once; what its dispute halted goes on, and so does trading.

    Raises DataError for less than nothing: a dispute does not end by that.
    """
    if payload.amount_usdc < 0:
        raise DataError(f"an escrow of {payload.amount_usdc} USDC is no income")
    if not await _keep(ctx, payload, "released"):
        return _LATE
    if payload.amount_usdc > 0:
        records.keep(ctx, f"resumed/{ctx.app.agent}", payload.escrow_id)
        wallet.spend(ctx, payload)
    return None


async def on_disputed(ctx: Context, payload: EscrowDisputed) -> Decision | None:
    """Halt what depends on an escrow in dispute, and have the evidence gathered."""
    if not await _keep(ctx, payload, "disputed"):
        return _LATE
    reason = payload.reason[:LONGEST_REASON]
    wish = EvidenceRequested(payload.escrow_id, ctx.event.event_id, payload.job_id, reason)
    ctx.emit("evidence.requested", wish, key=payload.escrow_id)
    return None


async def on_evidence(ctx: Context, payload: EvidenceRequested) -> None:
    """Write the case into one file, and raise the alert that says where it is.

    Raises ResourceError where it cannot be written; the last try raises the alert all the same.
    Raises NotNowError while the dispute itself is not committed, for what is emitted comes first.
    """
    desk: Desk = ctx.app
    found = await gather(desk.store, desk.agent, payload)
    is_new = ctx.now_ms - ctx.event.ts < records.COMMIT_MS
    if is_new and not found.has(payload.dispute_id):
        raise NotNowError("the dispute is not committed yet", retry_after=0.5)
    try:
        path = await asyncio.to_thread(
            write_file, desk.world.settings.evidence_dir, ctx.event.event_id, found
        )
        where = f"the evidence is in {path}"
    except OSError as error:
        reason = error.strerror or errno.errorcode.get(error.errno or 0, "unknown")
        if ctx.attempt < TRIES:
            raise ResourceError(f"the evidence cannot be written: {reason}") from None
        where = f"the evidence could not be written ({reason})"
    job = f" of job {payload.job_id}" if payload.job_id else ""
    detail = f"escrow {payload.escrow_id}{job}: {payload.reason or 'no reason given'}; {where}"
    ctx.alert("escrow_disputed", key=payload.escrow_id, detail=detail)


async def _keep(ctx: Context, payload: EscrowReleased | EscrowDisputed, state: str) -> bool:
    """Write it down; whether nothing newer of this escrow is known."""
    agent = ctx.app.agent
    name = f"escrow/{agent}/{payload.escrow_id}"
    late = await records.is_late(ctx, name)
    records.keep(ctx, name, Escrow(state, payload.amount_usdc))
    if job := payload.job_id:
        event_id = ctx.event.event_id
        ctx.write(lambda tx: records.tie(tx, agent, job, payload.escrow_id, event_id))
    note(ctx, job=job, escrow=payload.escrow_id)
    return not late
