"""Documented types are typed, unknown fields are kept, and money has bounds."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.errors import EnvelopeError
from fleet.core.events import Event, read_event
from fleet.core.payloads import KNOWN, MONEY_LIMIT

NOW = 1_800_000_000_000
TICK = '{"pair":"BTC/USDT","price":%s,"timestamp_ms":1800000000000}'


def read(event_type: str, payload: str, *, check: bool = True) -> Event:
    """The event of a type with a payload in JSON; raises EnvelopeError where that is wrong."""
    raw = (
        f'{{"eventId":"01ARZ3NDEKTSV4RRFFQ69G5FAV","type":"{event_type}","agentId":"a",'
        f'"payload":{payload},"ts":{NOW}}}'
    )
    return read_event(raw, NOW, payload=check)


def refuses(event_type: str, payload: str) -> None:
    """Check that the payload is refused for the type."""
    with pytest.raises(EnvelopeError):
        read(event_type, payload)


GOOD: dict[str, dict[str, Any]] = {
    "market.tick": {"pair": "BTC/USDT", "price": 1, "timestamp_ms": 5},
    "market.candle": dict.fromkeys(["open", "high", "low", "close", "volume"], 1) | {"pair": "B"},
    "wallet.balance_changed": {"new_balance_usdc": 1},
    "wallet.low_balance": {"balance_usdc": 1, "threshold_usdc": 2},
    "escrow.released": {"escrow_id": "e", "amount_usdc": 1},
    "escrow.disputed": {"escrow_id": "e", "amount_usdc": 1},
    "job.completed": {"job_id": "j"},
    "job.failed": {"job_id": "j"},
    "order.requested": {
        "pair": "B",
        "direction": "long",
        "size_usdc": 1,
        "leverage": 3,
        "timestamp_ms": 5,
        "key": "k",
    },
    "order.close_requested": {"key": "k", "position": "p", "pair": "B"},
    "faucet.claim_requested": {"key": "k"},
    "payment.release_requested": {
        "key": "k",
        "sender": "a",
        "recipient": "b",
        "amount_usdc": 1,
        "job_id": "j",
    },
    "job.hire_requested": {"key": "k", "agent": "a", "budget_usdc": 1},
    "income.reinvest_requested": {"key": "k", "amount_usdc": 1, "escrow_id": "e"},
    "evidence.requested": {"escrow_id": "e", "dispute_id": "d"},
    "alert.raised": {"name": "n", "severity": "info", "title": "t"},
}


def test_each_known_type_has_an_example():
    """The examples below cover every documented type."""
    assert GOOD.keys() == KNOWN.keys()


@pytest.mark.parametrize("event_type", GOOD)
def test_known_types(event_type: str):
    """A documented type is typed: unknown fields are kept, a missing or wrong one is refused."""
    good = GOOD[event_type]
    event = read(event_type, json.dumps({**good, "new_field": [1]}))
    assert event.payload["new_field"] == [1]
    assert isinstance(msgspec.convert(event.payload, KNOWN[event_type]), KNOWN[event_type])
    for name in good:
        less = {key: value for key, value in good.items() if key != name}
        refuses(event_type, json.dumps(less))
        refuses(event_type, json.dumps({**good, name: [good[name]]}))


@pytest.mark.parametrize(
    "price", ["1e15", "-1e15", "1e400", "1e-19", "1e999999999", '"NaN"', '"-Infinity"', "true"]
)
def test_money_out_of_bounds(price: str):
    """A price of 10^15 or more, finer than 18 places, or none at all is refused."""
    refuses("market.tick", TICK % price)


@given(st.decimals(-MONEY_LIMIT + 1, MONEY_LIMIT - 1, places=18))
def test_money_in_bounds(price: Decimal):
    """Every amount below 10^15 with up to 18 places is taken as it is."""
    event = read("market.tick", TICK % f"{price:f}")
    tick = msgspec.convert(event.payload, KNOWN["market.tick"])
    assert tick.price == price  # type: ignore[attr-defined] # KNOWN gives the common base


def test_a_reader_without_payloads():
    """Without `payload` a documented type's fields are left to whoever handles it."""
    refuses("market.tick", '{"odd":true}')
    assert read("market.tick", '{"odd":true}', check=False).payload == {"odd": True}
