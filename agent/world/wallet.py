"""The wallet: what it holds, when trading rests, and what becomes of income."""

from __future__ import annotations

from agent import records
from agent.desk import Desk
from agent.keys import faucet_key, hire_key, reinvest_key
from fleet.core.decision import Ack, Decision
from fleet.core.payloads import (
    BalanceChanged,
    ClaimRequested,
    EscrowReleased,
    HireRequested,
    LowBalance,
    ReinvestRequested,
)
from workers.context import Context

_LATE = Ack(skipped="a newer event has told more")


def on_balance(ctx: Context, payload: BalanceChanged) -> None:
    """Keep the balance; above the threshold, trading goes on."""
    records.keep(ctx, f"balance/{ctx.app.agent}", payload.new_balance_usdc)


async def on_low_balance(ctx: Context, payload: LowBalance) -> Decision | None:
    """Nothing is opened until the balance is above its threshold; claim the faucet, if there is."""
    desk: Desk = ctx.app
    name = f"balance/{desk.agent}"
    late = await records.is_late(ctx, name)
    records.keep(ctx, name, payload.balance_usdc)
    records.keep(ctx, f"threshold/{desk.agent}", payload.threshold_usdc)
    if late:
        return _LATE
    ctx.alert("low_balance", detail=f"{payload.balance_usdc} USDC are left")
    settings = desk.world.settings
    if settings.faucet:
        key = faucet_key(desk.agent, ctx.event.ts, settings.faucet_every_s * 1000)
        ctx.emit("faucet.claim_requested", ClaimRequested(key), key=key)
    return None


def spend(ctx: Context, income: EscrowReleased) -> None:
    """Do with the income of an escrow what the policy says: hold, hire or reinvest it."""
    desk: Desk = ctx.app
    settings, escrow = desk.world.settings, income.escrow_id
    if settings.income_policy == "reinvest" and income.amount_usdc > 0:
        key = reinvest_key(desk.agent, escrow)
        wish = ReinvestRequested(key, income.amount_usdc, escrow)
        ctx.emit("income.reinvest_requested", wish, key=key)
    elif settings.income_policy == "hire" and income.amount_usdc >= settings.hire_usdc:
        key = hire_key(desk.agent, settings.hire_agent, escrow)
        hire = HireRequested(key, settings.hire_agent, settings.hire_usdc, escrow_id=escrow)
        ctx.emit("job.hire_requested", hire, key=key)
