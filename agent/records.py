"""What wallet, escrow, job and candle events tell, kept as facts; late events undo nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import msgspec

from fleet.core.errors import DataError
from fleet.core.events import MAX_AHEAD_MS
from fleet.core.payloads import (
    BalanceChanged,
    EscrowDisputed,
    EscrowReleased,
    JobCompleted,
    JobFailed,
    LowBalance,
    MarketCandle,
)
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


def on_balance(ctx: Context, payload: BalanceChanged) -> None:
    """Keep the balance; above the threshold, trading goes on."""
    _keep(ctx, f"balance/{ctx.app.agent}", payload.new_balance_usdc)


def on_low_balance(ctx: Context, payload: LowBalance) -> None:
    """Keep balance and threshold: nothing is opened until the balance is above it."""
    _keep(ctx, f"balance/{ctx.app.agent}", payload.balance_usdc)
    _keep(ctx, f"threshold/{ctx.app.agent}", payload.threshold_usdc)


def on_released(ctx: Context, payload: EscrowReleased) -> None:
    """Book the income of an escrow, once."""
    _keep(
        ctx,
        f"escrow/{ctx.app.agent}/{payload.escrow_id}",
        Escrow("released", payload.amount_usdc),
    )


def on_disputed(ctx: Context, payload: EscrowDisputed) -> None:
    """Keep that the money of an escrow is in dispute."""
    _keep(
        ctx,
        f"escrow/{ctx.app.agent}/{payload.escrow_id}",
        Escrow("disputed", payload.amount_usdc),
    )


def on_completed(ctx: Context, payload: JobCompleted) -> None:
    """Keep what a hired agent delivered."""
    _keep(ctx, f"job/{ctx.app.agent}/{payload.job_id}", {"state": "completed", "said": payload})


def on_failed(ctx: Context, payload: JobFailed) -> None:
    """Keep why a hired agent gave up."""
    _keep(ctx, f"job/{ctx.app.agent}/{payload.job_id}", {"state": "failed", "said": payload})


def on_candle(ctx: Context, payload: MarketCandle) -> None:
    """Keep the last candle of a pair."""
    _keep(ctx, f"candle/{payload.pair}", payload)


def is_paused(tx: Tx, agent: str) -> bool:
    """Whether the balance of `agent`, as far as it is known, is not above its threshold."""
    balance, threshold = facts.get(tx, f"balance/{agent}"), facts.get(tx, f"threshold/{agent}")
    return balance is not None and threshold is not None and _money(balance) <= _money(threshold)


def income(tx: Tx, agent: str) -> Decimal:
    """What escrows have brought `agent`, in USDC: disputed ones do not count."""
    known = facts.under(tx, f"escrow/{agent}/")
    escrows = [msgspec.json.decode(fact.value, type=Escrow) for fact in known]
    return sum((one.amount_usdc for one in escrows if one.state == "released"), Decimal(0))


def _keep(ctx: Context, name: str, value: Any) -> None:
    if len(name) > LONGEST_NAME:
        raise DataError(f"{ctx.event.type}: a name of {len(name)} characters is no name")
    if ulid_ms(ctx.event.event_id) > ctx.event.ts + MAX_AHEAD_MS:
        # It would outrank every honest event after it.
        raise DataError(f"{ctx.event.type}: its id is dated after the event itself")
    fact = Fact(name, msgspec.json.encode(value).decode(), ctx.event.event_id)
    ctx.write(lambda tx: facts.put(tx, fact))


def _money(fact: Fact) -> Decimal:
    return msgspec.json.decode(fact.value, type=Decimal)
