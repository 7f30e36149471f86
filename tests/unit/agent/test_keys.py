"""Effect keys are the same for the same intent, and for no other."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.keys import close_key, escrow_key, trade_key
from fleet.core.errors import DataError

names = st.text(min_size=1, max_size=12).filter(lambda text: ":" not in text).filter(str.isascii)
times = st.integers(min_value=0, max_value=2**45)


def test_a_trade_key_is_the_documented_digest() -> None:
    """The key of a known trade does not change from one version to the next."""
    key = trade_key("pf_agent_1", "BTC/USDT", "long", 1_723_075_200_000)
    # printf trade:pf_agent_1:BTC/USDT:long:28717920 | sha256sum | cut -c1-32
    assert key == "367ab6aa97bea174aa8d7ccd62bd3f50"


@given(names, names, times, st.integers(min_value=0, max_value=59_999))
def test_a_minute_has_one_key(agent: str, pair: str, minute: int, offset: int) -> None:
    """Whenever in a minute an order is asked for, its key is the same; the next has another."""
    start = minute * 60_000
    key = trade_key(agent, pair, "long", start)
    assert re.fullmatch("[0-9a-f]{32}", key)
    assert trade_key(agent, pair, "long", start + offset) == key
    assert trade_key(agent, pair, "long", start + 60_000) != key
    assert trade_key(agent, pair, "short", start) != key


jobs = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=12)


@given(st.tuples(names, names, st.integers(1, 10**15), jobs), st.data())
def test_two_payments_never_share_a_key(
    payment: tuple[str, str, int, str], data: st.DataObject
) -> None:
    """Another sender, recipient, amount or job is another key."""
    other = data.draw(st.tuples(names, names, st.integers(1, 10**15), jobs))
    keys = {escrow_key(a, b, Decimal(cents) / 100, job) for a, b, cents, job in (payment, other)}
    assert len(keys) == len({payment, other})


@pytest.mark.parametrize("written", ["10", "10.0", "10.00", "1E+1"])
def test_one_amount_has_one_key_however_it_is_written(written: str) -> None:
    """Ten dollars are a thousand cents."""
    assert escrow_key("a", "b", Decimal(written), "job:1") == "escrow:a:b:1000:job:1"


@pytest.mark.parametrize("amount", ["0", "-1", "0.001", "NaN", "Infinity", "1E+400", "1E-400"])
def test_what_is_no_amount_has_no_key(amount: str) -> None:
    """Fractions of a cent are not rounded into somebody else's key."""
    with pytest.raises(DataError):
        escrow_key("a", "b", Decimal(amount), "job")


def test_a_colon_in_a_name_has_no_key() -> None:
    """`a:b` to `c` and `a` to `b:c` would be one payment."""
    with pytest.raises(DataError):
        escrow_key("a:b", "c", Decimal(1), "job")


def test_close_keys_tell_positions_apart() -> None:
    """A position is closed under its own key."""
    assert close_key("pos_1") == close_key("pos_1") != close_key("pos_2")
