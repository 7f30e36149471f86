"""The trading platform's own state: positions, money and idempotency. Pure: the clock is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Context, Decimal
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec

from sandbox.ledger import Effect, Ledger

WINDOW_MS: Final = 24 * 60 * 60 * 1000
SMALLEST_SIZE, LARGEST_SIZE = Decimal("0.01"), Decimal(1_000_000)
LARGEST_LEVERAGE: Final = Decimal(100)
USDC: Final = Decimal("0.000001")
EXACT: Final = Context(prec=60)

Key = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class OpenOrder(msgspec.Struct, frozen=True):
    """The body of a request to open a position."""

    pair: str
    direction: Literal["long", "short"]
    size_usdc: Decimal
    idempotency_key: Key
    leverage: Decimal = Decimal(1)


class TradeOrder(msgspec.Struct, frozen=True):
    """The body of the other request to open a position, whose key is in a header."""

    pair: str
    direction: Literal["long", "short"]
    size_usdc: Decimal
    leverage: Decimal = Decimal(1)


class CloseOrder(msgspec.Struct, frozen=True):
    """The body of a request to close a position."""

    position_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class Position(msgspec.Struct):
    """One position; `exit_price` and `realised_pnl_usdc` are set when it is closed."""

    position_id: str
    order: OpenOrder
    entry_price: Decimal
    opened_at_ms: int
    closed: dict[str, Any] | None = None

    def result(self) -> dict[str, Any]:
        """What the request that opened it was answered with."""
        return {
            "position_id": self.position_id,
            "pair": self.order.pair,
            "direction": self.order.direction,
            "size_usdc": self.order.size_usdc,
            "leverage": self.order.leverage,
            "entry_price": self.entry_price,
            "opened_at_ms": self.opened_at_ms,
            "idempotency_key": self.order.idempotency_key,
        }

    def profit(self, price: Decimal) -> Decimal:
        """What closing at `price` gains, in USDC to six places; a loss is negative."""
        move = EXACT.divide(EXACT.subtract(price, self.entry_price), self.entry_price)
        exposure = EXACT.multiply(self.order.size_usdc, self.order.leverage)
        gain = EXACT.multiply(exposure, move)
        return (gain if self.order.direction == "long" else -gain).quantize(USDC, context=EXACT)


class Answer(NamedTuple):
    """An HTTP status and a JSON body."""

    status: int
    body: dict[str, Any]


class Known(NamedTuple):
    """What a key was first answered with, and when."""

    at_ms: int
    result: Callable[[], dict[str, Any]]


class Venue:
    """Opens, closes and other effects, each executed once per key within 24 hours.

    `price_of` gives the last price of a pair or None, `new_id` a new unique id. Without
    `idempotent` every request is a new effect. The ledger is told of all that is executed, and
    never asked.
    """

    def __init__(
        self,
        price_of: Callable[[str], Decimal | None],
        new_id: Callable[[], str],
        ledger: Ledger,
        *,
        idempotent: bool = True,
    ) -> None:
        self._price_of = price_of
        self._new_id = new_id
        self._ledger = ledger
        self._idempotent = idempotent
        self._known: dict[tuple[str, str], Known] = {}
        self._positions: dict[str, Position] = {}
        self._open: dict[str, Position] = {}

    def positions(self) -> list[dict[str, Any]]:
        """The open positions, oldest first."""
        return [position.result() for position in self._open.values()]

    def open(self, order: OpenOrder, now_ms: int) -> Answer:
        """Open a position: 201, 409 with the original for a known key, 422 where refused."""
        if reason := _fault_in(order):
            return Answer(422, {"error": reason})
        original = self._original("open", order.idempotency_key, now_ms)
        if original is not None:
            return self._again("open", order.idempotency_key, original, now_ms)
        price = self._price_of(order.pair)
        if price is None:
            return Answer(422, {"error": f"there is no market for {order.pair[:32]}"})
        position = Position(f"pos_{self._new_id()}", order, price, now_ms)
        self._positions[position.position_id] = self._open[position.position_id] = position
        self._remember("open", order.idempotency_key, now_ms, lambda: _with_status(position))
        self._note("open", order.idempotency_key, now_ms, position)
        return Answer(201, position.result())

    def trade(self, order: TradeOrder, key: str, now_ms: int) -> Answer:
        """Open a position as `open` does, and tell nothing of it but the order's id."""
        wish = OpenOrder(order.pair, order.direction, order.size_usdc, key, order.leverage)
        answer = self.open(wish, now_ms)
        if answer.status == HTTPStatus.CREATED:
            return Answer(answer.status, _order_id(answer.body))
        if answer.status == HTTPStatus.CONFLICT:
            body = {**answer.body, "original": _order_id(answer.body["original"])}
            return Answer(answer.status, body)
        return answer

    def close(self, order: CloseOrder, now_ms: int) -> Answer:
        """Close a position: 200, 404 where unknown, 409 with the original where closed already."""
        position = self._positions.get(order.position_id)
        if position is None:
            return Answer(404, {"error": "there is no such position"})
        if position.closed is not None:
            return self._again("close", order.position_id, position.closed, now_ms)
        price = self._price_of(position.order.pair) or position.entry_price
        position.closed = {
            "position_id": order.position_id,
            "exit_price": price,
            "realised_pnl_usdc": position.profit(price),
            "closed_at_ms": now_ms,
        }
        del self._open[order.position_id]
        self._note("close", order.position_id, now_ms, position)
        return Answer(200, position.closed)

    def act(
        self, kind: str, id_field: str, key: str, body: Mapping[str, Any], now_ms: int
    ) -> Answer:
        """Another effect under a key: 201 with a new id in `id_field`, or 409 with the original.

        `body` is what the request said; it is repeated in the answer.
        """
        original = self._original(kind, key, now_ms)
        if original is not None:
            return self._again(kind, key, original, now_ms)
        result = {**body, id_field: f"{kind}_{self._new_id()}", "accepted_at_ms": now_ms}
        self._remember(kind, key, now_ms, lambda: result)
        self._ledger.accepted(Effect(kind=kind, key=key, at_ms=now_ms))
        return Answer(201, result)

    def _original(self, kind: str, key: str, now_ms: int) -> dict[str, Any] | None:
        self._forget(now_ms)
        known = self._known.get((kind, key))
        return known.result() if known else None

    def _remember(
        self, kind: str, key: str, now_ms: int, result: Callable[[], dict[str, Any]]
    ) -> None:
        if self._idempotent:
            self._known[kind, key] = Known(now_ms, result)

    def _forget(self, now_ms: int) -> None:
        # Keys are remembered in the order of time, so that the oldest comes first.
        while self._known:
            oldest = next(iter(self._known))
            if self._known[oldest].at_ms > now_ms - WINDOW_MS:
                return
            del self._known[oldest]

    def _again(self, kind: str, key: str, original: dict[str, Any], now_ms: int) -> Answer:
        self._ledger.answered_again(Effect(kind=kind, key=key, at_ms=now_ms))
        return Answer(409, {"error": "duplicate", "original": original})

    def _note(self, kind: str, key: str, now_ms: int, position: Position) -> None:
        self._ledger.accepted(
            Effect(
                kind=kind,
                key=key,
                at_ms=now_ms,
                position_id=position.position_id,
                pair=position.order.pair,
                direction=position.order.direction,
            )
        )


def _order_id(position: dict[str, Any]) -> dict[str, Any]:
    return {"order_id": position["position_id"].replace("pos_", "ord_", 1)}


def _with_status(position: Position) -> dict[str, Any]:
    return {**position.result(), "status": "closed" if position.closed else "open"}


def _fault_in(order: OpenOrder) -> str | None:
    size, leverage = order.size_usdc, order.leverage
    if not (size.is_finite() and SMALLEST_SIZE <= size <= LARGEST_SIZE):
        return f"size_usdc must be {SMALLEST_SIZE} to {LARGEST_SIZE}"
    if not (leverage.is_finite() and 1 <= leverage <= LARGEST_LEVERAGE):
        return f"leverage must be 1 to {LARGEST_LEVERAGE}"
    return None
