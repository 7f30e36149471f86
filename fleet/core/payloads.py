"""The payloads of the event types that the platform documents.

Unknown fields are not an error: they stay in `Event.payload`. Money and prices are Decimal, read
from the JSON text without a float in between.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal

import msgspec

MONEY_LIMIT: Final = Decimal(10) ** 15
MONEY_PLACES: Final = 18


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
    """An escrow was paid out."""

    escrow_id: str
    amount_usdc: Decimal


class EscrowDisputed(Payload, frozen=True, gc=False):
    """An escrow is in dispute."""

    escrow_id: str
    amount_usdc: Decimal


class JobCompleted(Payload, frozen=True, gc=False):
    """A hired agent delivered."""

    job_id: str
    result_hash: str = ""
    delivery_uri: str = ""


class JobFailed(Payload, frozen=True, gc=False):
    """A hired agent gave up."""

    job_id: str
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
}

LIVE_ONLY: Final = frozenset({"market.tick"})
"""Types worth only their moment: the bridge may shed them where a queue is full."""
