"""Durable commands to the world, each carried out once under its key.

What became of one whose answer was lost is asked by sending the same key again, for as long as
the other side knows it; after that, or where it knows no keys (`PF_RESEND`), a person says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from agent import records, wire
from agent.desk import Desk
from agent.keys import RESEND_MS
from agent.records import Terms
from agent.wire import Id
from agent.world import mandate
from agent.world.casefile import note
from agent.world.ports import Port
from agent.world.template import Value
from fleet.core.decision import Ack, Decision, Fail, Postpone
from fleet.core.errors import DataError
from fleet.core.failure import failure
from fleet.core.payloads import (
    ClaimRequested,
    HireRequested,
    PaymentRequested,
    ReinvestRequested,
)
from fleet.store.api import Tx
from workers.context import Context

HALT_S: Final = 60.0
LARGEST_RESULT: Final = 4096


class _Hired(msgspec.Struct, frozen=True):
    job_id: Id


async def on_claim(ctx: Context, wish: ClaimRequested) -> Decision:
    """Claim the faucet."""
    desk: Desk = ctx.app
    if ended := await _before(ctx, lambda _: mandate.claim_fault(desk, wish, ctx.event)):
        return ended
    await _send(ctx, desk.world.ports.faucet, {"agent": desk.agent}, wish.key)
    return Ack()


async def on_payment(ctx: Context, wish: PaymentRequested) -> Decision:
    """Release the payment for a job, as agreed; not while its money is in dispute."""
    desk: Desk = ctx.app

    def fault(tx: Tx) -> str:
        return mandate.payment_fault(tx, desk, wish)

    if ended := await _before(ctx, fault, wish.job_id, wish.escrow_id):
        return ended
    note(ctx, job=wish.job_id, escrow=wish.escrow_id)
    values: dict[str, Value] = {
        "agent": wish.sender,
        "recipient": wish.recipient,
        "amount": wish.amount_usdc,
        "job": wish.job_id,
        "escrow": wish.escrow_id,
    }
    await _send(ctx, desk.world.ports.release, values, wish.key)
    return Ack()


async def on_hire(ctx: Context, wish: HireRequested) -> Decision:
    """Hire an agent, and keep what was agreed under the job that it got."""
    desk: Desk = ctx.app

    def fault(tx: Tx) -> str:
        return mandate.hire_fault(tx, desk, wish, ctx.event, ctx.now_ms)

    if ended := await _before(ctx, fault, wish.job_id, wish.escrow_id):
        return ended
    values: dict[str, Value] = {
        "agent": desk.agent,
        "recipient": wish.agent,
        "amount": wish.budget_usdc,
        "job": wish.job_id,
        "escrow": wish.escrow_id,
    }
    answer = await _send(ctx, desk.world.ports.hire, values, wish.key)
    job = wire.read(answer, _Hired, "hiring").job_id
    agreed = Terms(wish.agent, wish.budget_usdc, wish.job_id, wish.escrow_id)
    # Not here but with the result: what is wrong with the answer does not undo the hiring.
    ctx.write(lambda tx: records.agree(tx, desk.agent, job, agreed, ctx.event.event_id))
    for name in filter(None, (job, wish.job_id)):
        note(ctx, job=name, escrow=wish.escrow_id)
    return Ack()


async def on_reinvest(ctx: Context, wish: ReinvestRequested) -> Decision:
    """Put the income of an escrow into the trading account; not while it is in dispute."""
    desk: Desk = ctx.app

    def fault(tx: Tx) -> str:
        return mandate.reinvest_fault(tx, desk, wish, ctx.event, ctx.now_ms)

    if ended := await _before(ctx, fault, "", wish.escrow_id):
        return ended
    values: dict[str, Value] = {
        "agent": desk.agent,
        "amount": wish.amount_usdc,
        "escrow": wish.escrow_id,
    }
    await _send(ctx, desk.world.ports.reinvest, values, wish.key)
    return Ack()


async def claim_unknown(ctx: Context, wish: ClaimRequested) -> Decision:
    """What became of an earlier attempt at a claim."""
    return _never_known(ctx, wish.key) or await on_claim(ctx, wish)


async def payment_unknown(ctx: Context, wish: PaymentRequested) -> Decision:
    """What became of an earlier attempt at a payment."""
    return _never_known(ctx, wish.key) or await on_payment(ctx, wish)


async def hire_unknown(ctx: Context, wish: HireRequested) -> Decision:
    """What became of an earlier attempt to hire."""
    return _never_known(ctx, wish.key) or await on_hire(ctx, wish)


async def reinvest_unknown(ctx: Context, wish: ReinvestRequested) -> Decision:
    """What became of an earlier attempt to reinvest."""
    return _never_known(ctx, wish.key) or await on_reinvest(ctx, wish)


_HALTED: Final = Postpone(HALT_S, "its money is in dispute")


async def _send(ctx: Context, port: Port, values: Mapping[str, Value], key: str) -> bytes:
    ctx.effecting.mode = ctx.app.mode_text
    answer = await port.send(values, key)
    told = answer[:LARGEST_RESULT].decode("utf-8", "replace")
    ctx.effecting.done({"answer": told})
    return answer


async def _before(
    ctx: Context, fault: Callable[[Tx], str], job: str = "", escrow: str = ""
) -> Decision | None:
    """Whether it is on paper, or has to wait for a dispute; raises DataError for a `fault`.

    Whatever happens here, this attempt did not touch the world.
    """
    desk: Desk = ctx.app
    if skipped := _on_paper(ctx):
        return skipped

    def look(tx: Tx) -> str | None:
        return None if records.is_disputed(tx, desk.agent, job, escrow) else fault(tx)

    try:
        wrong = await desk.store.read(look)
    except Exception:
        ctx.effecting.not_done()
        raise
    if wrong is None:
        return _HALTED
    if wrong:
        ctx.effecting.not_done()
        raise DataError(wrong)
    return None


def _on_paper(ctx: Context) -> Decision | None:
    """Paper moves no money and spends no key: what is owed is still owed when it is over."""
    desk: Desk = ctx.app
    if not desk.settings.paper:
        return None
    if ctx.effecting.before is None:
        return Ack(skipped="on paper")
    return Postpone(HALT_S, "what became of it is not to be asked on paper")


def _never_known(ctx: Context, key: str) -> Decision | None:
    """The end of a command that may have been carried out and cannot be asked about."""
    desk: Desk = ctx.app
    # The first attempt was no earlier than the event.
    if desk.world.ports.resend and ctx.now_ms - ctx.event.ts <= RESEND_MS:
        return None
    reason = f"whether {key} was ever carried out is not known, and it cannot be asked any more"
    return Fail(failure("state", "UnknownOutcome", reason))
