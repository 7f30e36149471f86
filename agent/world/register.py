"""Which event of wallet, escrows and jobs goes to which handler."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import wraps
from typing import Any, Final

from agent.world import commands, escrows, health, jobs, mandate, reconcile, wallet
from fleet.core.decision import Ack
from fleet.core.retry import RetryPolicy
from workers.context import Context
from workers.registry import Function, Result, Service

OURS: Final[tuple[tuple[str, Function], ...]] = (
    ("wallet.balance_changed", wallet.on_balance),
    ("wallet.low_balance", wallet.on_low_balance),
    ("escrow.released", escrows.on_released),
)
"""Money: that of another agent is not ours to count or to spend."""
TOLD: Final[tuple[tuple[str, Function], ...]] = (
    ("escrow.disputed", escrows.on_disputed),
    ("job.completed", jobs.on_completed),
    ("job.failed", jobs.on_failed),
    ("evidence.requested", escrows.on_evidence),
    ("clock.health", health.on_health),
    ("clock.reconcile", reconcile.on_reconcile),
)
COMMANDS: Final[tuple[tuple[str, Function, Function], ...]] = (
    ("faucet.claim_requested", commands.on_claim, commands.claim_unknown),
    ("payment.release_requested", commands.on_payment, commands.payment_unknown),
    ("job.hire_requested", commands.on_hire, commands.hire_unknown),
    ("income.reinvest_requested", commands.on_reinvest, commands.reinvest_unknown),
)
PATIENT: Final = RetryPolicy(attempts=6, base=2.0, cap=60.0)
"""Money that is owed waits longer than an order whose price moves."""


def register(service: Service, call_s: float) -> None:
    """Add the handlers beside trading to the agent; a call takes up to `call_s` seconds."""
    for pattern, function in OURS:
        service.handler(pattern)(_if_ours(function))
    for pattern, function in TOLD:
        service.handler(pattern)(function)
    for pattern, function, unknown in COMMANDS:
        service.handler(
            pattern,
            effect="once",
            key=mandate.key_of,
            unknown=unknown,
            retry=PATIENT,
            deadline=2 * call_s + 5.0,
        )(function)


def _if_ours(function: Function) -> Function:
    """The handler for what is told of this agent; what is told of another changes nothing here."""

    @wraps(function)
    def handle(ctx: Context, payload: Any) -> Result | Awaitable[Result]:
        if ctx.event.agent_id != ctx.app.agent:
            return Ack(skipped=f"it is about {ctx.event.agent_id}")
        return function(ctx, payload)

    return handle
