"""What the executor, closings and the reconciliation do alike to the book."""

from __future__ import annotations

from decimal import Decimal

from agent.prices import last_price, presumed_loss
from agent.wire import VenuePosition
from fleet.core.errors import DataError
from fleet.store import positions
from fleet.store.api import Tx
from fleet.store.positions import Position


def adopt(tx: Tx, place: Position, made: VenuePosition, now_ms: int) -> None:
    """What the venue has under the key of a reserved place is open, as the venue tells of it."""
    known_way = made.direction in ("long", "short")
    positions.as_found(
        tx,
        place.key,
        made.direction if known_way else place.direction,
        place.size if made.size_usdc is None else made.size_usdc,
        place.leverage if made.leverage is None else made.leverage,
    )
    positions.opened(tx, place.key, made.position_id, made.entry_price, now_ms)


def doubt(tx: Tx, held: Position, service: str, now_ms: int, entry: Decimal | None = None) -> None:
    """It is over and nobody knows what it gained: its loss at the last price is presumed.

    `entry` is the price to count from where the book has none.
    """
    price = last_price(tx, service, held.pair)
    loss = presumed_loss(held, held.entry_price or entry, price)
    positions.closed_in_doubt(tx, held.key, loss, now_ms)


def must_be_in(held: Position, book: str) -> None:
    """Raise DataError where a position is of another book: one on paper is nothing at the venue."""
    if held.agent != book:
        raise DataError(
            f"{held.key} is in the book {held.agent} and this worker's is {book};"
            " replay it where workers have that book"
        )
