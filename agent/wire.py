"""What the venue may answer, checked like any input. Pure."""

from __future__ import annotations

import math
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from fleet.core.errors import NetworkError
from fleet.core.payloads import Payload

LONGEST_WAIT_S: Final = 300.0
SHORTEST_WAIT_S: Final = 0.25

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
T = TypeVar("T")


class VenuePosition(Payload, frozen=True, gc=False):
    """A position as the venue tells of it; only its id is promised.

    `status` is told where it answers a key that was used before.
    """

    position_id: Id
    pair: str = ""
    direction: str = ""
    size_usdc: Decimal | None = None
    leverage: Decimal | None = None
    entry_price: Decimal | None = None
    opened_at_ms: int | None = None
    idempotency_key: str | None = None
    status: Literal["open", "closed", ""] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.entry_price is not None and self.entry_price <= 0:
            raise ValueError("entry_price is not above zero")


class OrderTaken(msgspec.Struct, frozen=True, gc=False):
    """The answer of the endpoint that tells an order's id and nothing else."""

    order_id: Id


class VenuePositions(msgspec.Struct, frozen=True, gc=False):
    """All open positions."""

    positions: tuple[VenuePosition, ...]


class ClosedPosition(Payload, frozen=True, gc=False):
    """What closing a position gained."""

    realised_pnl_usdc: Decimal
    exit_price: Decimal | None = None
    position_id: str | None = None


def read(body: bytes, kind: type[T], what: str) -> T:
    """The answer to `what`. Raises NetworkError where it is not one: the outcome is not known."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError, ArithmeticError) as error:
        reason = f"the answer to {what} cannot be read: {error}"
        raise NetworkError(reason[:300]) from None


def original(body: bytes, what: str) -> bytes:
    """The original result in a 409. Raises NetworkError where there is none."""
    return bytes(read(body, _Duplicate, what).original)


def retry_after(text: str | None, now_s: float) -> float | None:
    """Seconds in a Retry-After header (a number or a date), 0.25 to 300; None where it is none."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = _until(text, now_s)
    if math.isnan(seconds):
        return None
    return min(max(seconds, SHORTEST_WAIT_S), LONGEST_WAIT_S)


class _Duplicate(msgspec.Struct, frozen=True):
    original: msgspec.Raw


def _until(text: str, now_s: float) -> float:
    try:
        return parsedate_to_datetime(text).timestamp() - now_s
    except (ValueError, OverflowError, TypeError, IndexError, OSError):
        return math.nan
