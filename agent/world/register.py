"""Which event of wallet, escrows and jobs goes to which handler."""

from __future__ import annotations

from typing import Final

from agent.world import commands, escrows, health, jobs, mandate, reconcile, wallet
from fleet.core.retry import RetryPolicy
from workers.registry import Function, Service

TOLD: Final[tuple[tuple[str, Function], ...]] = (
    ("wallet.balance_changed", wallet.on_balance),
    ("wallet.low_balance", wallet.on_low_balance),
    ("escrow.released", escrows.on_released),
    ("escrow.disputed", escrows.on_disputed),
    ("evidence.requested", escrows.on_evidence),
    ("job.completed", jobs.on_completed),
    ("job.failed", jobs.on_failed),
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
