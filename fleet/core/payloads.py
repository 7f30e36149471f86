"""The payloads of the event types that the platform documents, and of the fleet's own.

Unknown fields are not an error: they stay in `Event.payload`. Money and prices are Decimal, read
from the JSON text without a float in between.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final, Literal

import msgspec

MONEY_LIMIT: Final = Decimal(10) ** 15
MONEY_PLACES: Final = 18

Name = Annotated[str, msgspec.Meta(min_length=1)]


class Payload(msgspec.Struct, frozen=True, gc=False):
    """The known fields of one event type; every Decimal among them is finite and below 10^15."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if type(value) is Decimal:
                _check_money(name, value)


def _check_money(name: str, value: Decimal) -> None:
    # Comparing with NaN raises InvalidOperation; with 1e999999999 it is cheap, adding is not.
    if not -MONEY_LIMIT < value < MONEY_LIMIT or (value and value.adjusted() < -MONEY_PLACES):
        raise ValueError(f"{name} is out of bounds")


class MarketTick(Payload, frozen=True, gc=False):
    """The last price of a pair, with the open, high, low, close and volume of the moment."""

    pair: str
    price: Decimal
    timestamp_ms: int
    open: Decimal | None = None
    high: Decimal | None = None
    low: Decimal | None = None
    close: Decimal | None = None
    volume: Decimal | None = None
    synthetic: bool = False
    """Put in by the bridge where the stream had none."""


class MarketCandle(Payload, frozen=True, gc=False):
    """One minute of a pair."""

    pair: str
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


class BalanceChanged(Payload, frozen=True, gc=False):
    """The wallet's new balance."""

    new_balance_usdc: Decimal
    reason: str = ""


class LowBalance(Payload, frozen=True, gc=False):
    """The wallet fell below its threshold."""

    balance_usdc: Decimal
    threshold_usdc: Decimal


class EscrowReleased(Payload, frozen=True, gc=False):
    """An escrow was paid out; `job_id` is the job it stood for, where that is told."""

    escrow_id: Name
    amount_usdc: Decimal
    job_id: str = ""


class EscrowDisputed(Payload, frozen=True, gc=False):
    """An escrow is in dispute; `job_id` is the job it stands for, where that is told."""

    escrow_id: Name
    amount_usdc: Decimal
    job_id: str = ""
    reason: str = ""


class JobCompleted(Payload, frozen=True, gc=False):
    """A hired agent delivered."""

    job_id: Name
    result_hash: str = ""
    delivery_uri: str = ""


class JobFailed(Payload, frozen=True, gc=False):
    """A hired agent gave up."""

    job_id: Name
    error: str = ""


class OrderRequested(Payload, frozen=True, gc=False):
    """A durable command to trade: emitted by a strategy, carried out by the executor.

    `key` is the effect key; `timestamp_ms` is the business time of the tick that led to it.
    """

    pair: str
    direction: Literal["long", "short"]
    size_usdc: Decimal
    leverage: Decimal
    timestamp_ms: int
    key: str
    price: Decimal | None = None
    strategy: str = ""
    paper: bool = False
    """Only a worker that trades on paper may carry it out."""


class ClaimRequested(Payload, frozen=True, gc=False):
    """A durable command to claim the faucet, under the effect key `key`."""

    key: str


class PaymentRequested(Payload, frozen=True, gc=False):
    """A durable command to release the payment for a job, under its escrow key."""

    key: str
    sender: str
    recipient: str
    amount_usdc: Decimal
    job_id: str
    escrow_id: str = ""


class HireRequested(Payload, frozen=True, gc=False):
    """A durable command to hire an agent; `job_id` is the job that it takes over, if any.

    `escrow_id` is the income that pays for it, if that is why.
    """

    key: str
    agent: str
    budget_usdc: Decimal
    job_id: str = ""
    escrow_id: str = ""


class ReinvestRequested(Payload, frozen=True, gc=False):
    """A durable command to put the income of an escrow into the trading account."""

    key: str
    amount_usdc: Decimal
    escrow_id: str


class EvidenceRequested(Payload, frozen=True, gc=False):
    """A durable command to gather what is known of an escrow, which `dispute_id` disputed."""

    escrow_id: str
    dispute_id: str
    job_id: str = ""
    reason: str = ""


class AlertRaised(Payload, frozen=True, gc=False):
    """Something a person should know; `runbook` is where it is explained.

    `key` tells alerts of one name apart; those alike within a time window are one event.
    """

    name: str
    severity: Literal["info", "warning", "critical"]
    title: str
    detail: str = ""
    key: str = ""
    runbook: str = ""


class CloseRequested(Payload, frozen=True, gc=False):
    """A durable command to close one position of the book, whatever becomes of it.

    `key` is the effect key, `position` the key of the order that opened it; where that is empty the
    book does not have it, and `venue_id` is the venue's own name for it.
    """

    key: str
    position: str
    pair: str
    reason: str = ""
    venue_id: str = ""


KNOWN: Final[dict[str, type[Payload]]] = {
    "market.tick": MarketTick,
    "market.candle": MarketCandle,
    "wallet.balance_changed": BalanceChanged,
    "wallet.low_balance": LowBalance,
    "escrow.released": EscrowReleased,
    "escrow.disputed": EscrowDisputed,
    "job.completed": JobCompleted,
    "job.failed": JobFailed,
    "order.requested": OrderRequested,
    "faucet.claim_requested": ClaimRequested,
    "payment.release_requested": PaymentRequested,
    "job.hire_requested": HireRequested,
    "income.reinvest_requested": ReinvestRequested,
    "evidence.requested": EvidenceRequested,
    "alert.raised": AlertRaised,
    "order.close_requested": CloseRequested,
}

LIVE_ONLY: Final = frozenset({"market.tick"})
"""Types worth only their moment: the bridge may shed them where a queue is full."""

OWN: Final = frozenset(
    {
        "alert.delivery_requested",
        "alert.raised",
        "clock.health",
        "clock.reconcile",
        "evidence.requested",
        "faucet.claim_requested",
        "fleet.canary",
        "income.reinvest_requested",
        "job.hire_requested",
        "order.close_requested",
        "order.requested",
        "payment.release_requested",
        "signal.recorded",
    }
)
"""Types that the fleet alone makes: whoever could send one from outside could trade and pay."""
