"""Positions, money, idempotency."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.ledger import Ledger
from sandbox.venue import WINDOW_MS, CloseOrder, OpenOrder, Venue


def venue_of(
    prices: dict[str, Decimal] | None = None, *, idempotent: bool = True
) -> tuple[Venue, Ledger]:
    """A venue with prices that the test can move."""
    ledger, ids = Ledger(), count(1)
    prices = {"A/B": Decimal(100)} if prices is None else prices
    return Venue(prices.get, lambda: str(next(ids)), ledger, idempotent=idempotent), ledger


def order(key: str = "k", direction: str = "long", **changes: object) -> OpenOrder:
    """An order that is fine but for the changes."""
    given = {"pair": "A/B", "size_usdc": Decimal(50), "leverage": Decimal(3), **changes}
    return OpenOrder(direction=direction, idempotency_key=key, **given)


@pytest.mark.parametrize(
    ("direction", "exit_price", "profit"),
    [("long", "103", "4.5"), ("short", "103", "-4.5"), ("short", "97", "4.5"), ("long", "100", 0)],
)
def test_profit_is_exact(direction: str, exit_price: str, profit: str) -> None:
    """Closing pays size times leverage times the move, the other way round for a short."""
    prices = {"A/B": Decimal(100)}
    venue, _ = venue_of(prices)
    opened = venue.open(order(direction=direction), 1)
    prices["A/B"] = Decimal(exit_price)
    closed = venue.close(CloseOrder(opened.body["position_id"]), 2)
    assert closed.status == 200
    assert closed.body["realised_pnl_usdc"] == Decimal(profit)
    assert closed.body["exit_price"] == Decimal(exit_price)
    assert venue.positions() == []


def test_the_same_key_gets_the_original_and_learns_what_became_of_it() -> None:
    """A duplicate is 409 with the first result and whether that position is open still."""
    venue, ledger = venue_of()
    first = venue.open(order(), 1)
    again = venue.open(order(direction="short"), 2)
    assert (first.status, again.status) == (201, 409)
    assert again.body == {"error": "duplicate", "original": {**first.body, "status": "open"}}
    venue.close(CloseOrder(first.body["position_id"]), 3)
    assert venue.open(order(), 4).body["original"]["status"] == "closed"
    assert ledger.summary()["effects"] == 2
    assert ledger.summary()["duplicates_answered"] == 2


def test_a_key_is_forgotten_after_24_hours() -> None:
    """Within the window the key is known to its last millisecond; after it, it is new."""
    venue, ledger = venue_of()
    assert venue.open(order(), 0).status == 201
    assert venue.open(order(), WINDOW_MS - 1).status == 409
    assert venue.open(order(), WINDOW_MS).status == 201
    assert ledger.summary()["keys_executed_twice"] == 1


def test_closing_again_repeats_the_first_answer() -> None:
    """A second close is 409 with the original, at the price of then; a stranger is 404."""
    prices = {"A/B": Decimal(100)}
    venue, ledger = venue_of(prices)
    close = CloseOrder(venue.open(order(), 1).body["position_id"])
    first = venue.close(close, 2)
    prices["A/B"] = Decimal(500)
    again = venue.close(close, 3)
    assert (again.status, again.body["original"]) == (409, first.body)
    assert venue.close(CloseOrder("pos_x"), 4).status == 404
    assert ledger.summary()["closed"] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"size_usdc": Decimal(0)},
        {"size_usdc": Decimal(-5)},
        {"size_usdc": Decimal("NaN")},
        {"size_usdc": Decimal("Infinity")},
        {"size_usdc": Decimal("1e999999")},
        {"leverage": Decimal(0)},
        {"leverage": Decimal("sNaN")},
        {"leverage": Decimal(101)},
        {"pair": "NO/PE"},
    ],
)
def test_an_order_that_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    """It is 422 with a reason, no effect, and its key stays free."""
    venue, ledger = venue_of()
    answer = venue.open(order(**changes), 1)
    assert (answer.status, ledger.summary()["effects"]) == (422, 0)
    assert answer.body["error"]
    assert venue.open(order(), 2).status == 201


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(("open", "claim", "job")))))
def test_a_key_is_executed_once_whatever_is_repeated(calls: list[tuple[str, str]]) -> None:
    """One effect per kind and key; every other call is answered with the original."""
    for idempotent in (True, False):
        venue, ledger = venue_of(idempotent=idempotent)
        for at, (key, kind) in enumerate(calls):
            if kind == "open":
                venue.open(order(key), at)
            else:
                venue.act(kind, "id", key, {}, at)
        summary, distinct = ledger.summary(), len(set(calls))
        executed = distinct if idempotent else len(calls)
        repeated = sum(times > 1 for times in Counter(calls).values())
        assert summary["effects"] == executed
        assert summary["duplicates_answered"] == len(calls) - executed
        assert summary["keys_executed_twice"] == (0 if idempotent else repeated)
