"""What else happens to an agent: wallet, escrow and job events, by a seeded script."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import msgspec

THRESHOLD: Final = Decimal(10)
CENT: Final = Decimal("0.01")
# One round holds each kind at least once; its order is shuffled.
ROUND: Final = (
    "job.completed",
    "job.completed",
    "job.completed",
    "job.failed",
    "escrow.released",
    "escrow.released",
    "escrow.disputed",
    "wallet.balance_changed",
    "wallet.balance_changed",
    "wallet.low_balance",
)
REASONS: Final = ("deposit", "trade_settled", "escrow_released", "fee")
ERRORS: Final = ("deadline_exceeded", "worker_unreachable", "result_rejected")

_encode = msgspec.json.Encoder(decimal_format="number").encode


class Script:
    """An endless, seeded story of one agent's wallet, escrows and jobs.

    The numbers hang together: the wallet is reported low only below its threshold, and the next
    change of balance lifts it above again.
    """

    def __init__(self, seed: int, agent_id: str) -> None:
        self._chance = random.Random(f"script {seed}")  # noqa: S311 - a story, not a secret
        self._agent_id = agent_id
        self._balance = Decimal("250.00")
        self._count = 0
        self._round: list[str] = []
        self._tell: dict[str, Callable[[], dict[str, Any]]] = {
            "job.completed": self._completed,
            "job.failed": self._failed,
            "escrow.released": self._escrow,
            "escrow.disputed": self._disputed,
            "wallet.balance_changed": self._changed,
            "wallet.low_balance": self._low,
        }

    def next(self) -> tuple[str, str]:
        """The next event: its type, and its payload as JSON text."""
        if not self._round:
            self._round = list(ROUND)
            self._chance.shuffle(self._round)
        kind = self._round.pop()
        self._count += 1
        return kind, _encode(self._tell[kind]()).decode()

    def _money(self, low: int, high: int) -> Decimal:
        return (Decimal(self._chance.randint(low * 100, high * 100)) / 100).quantize(CENT)

    def _job(self) -> str:
        return f"job_{self._count:06d}"

    def _completed(self) -> dict[str, Any]:
        digest = hashlib.sha256(f"{self._job()} {self._chance.random()}".encode()).hexdigest()
        return {
            "job_id": self._job(),
            "result_hash": f"sha256:{digest}",
            "delivery_uri": f"https://delivery.purpleflea.example/{self._job()}",
        }

    def _failed(self) -> dict[str, Any]:
        return {"job_id": self._job(), "error": self._chance.choice(ERRORS)}

    def _escrow(self) -> dict[str, Any]:
        return {
            "escrow_id": f"esc_{self._count:06d}",
            "amount_usdc": self._money(5, 80),
            "job_id": self._job(),
            "from": f"pf_agent_client{self._chance.randint(1, 9)}",
            "to": self._agent_id,
        }

    def _disputed(self) -> dict[str, Any]:
        return {**self._escrow(), "reason": "result_rejected"}

    def _changed(self) -> dict[str, Any]:
        if self._balance < THRESHOLD:
            self._balance += self._money(100, 200)
            return {"new_balance_usdc": self._balance, "reason": "deposit"}
        change = self._money(1, 20) * self._chance.choice((1, -1))
        self._balance = max(self._balance + change, THRESHOLD)
        return {"new_balance_usdc": self._balance, "reason": self._chance.choice(REASONS)}

    def _low(self) -> dict[str, Any]:
        self._balance = self._money(1, 9)
        return {"balance_usdc": self._balance, "threshold_usdc": THRESHOLD}
