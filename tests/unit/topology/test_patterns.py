"""Fleet patterns and what they are on the broker."""

from __future__ import annotations

import pytest

from fleet.core.errors import TopologyError
from topology.patterns import binding_key, matches


@pytest.mark.parametrize(
    ("pattern", "key"),
    [("order.requested", "order.requested"), ("wallet.*", "wallet.#"), ("*", "#")],
)
def test_a_pattern_has_one_binding_key(pattern: str, key: str):
    """Exact types stay as they are; a star becomes the broker's hash."""
    assert binding_key(pattern) == key


@pytest.mark.parametrize(
    "pattern", ["", "wallet", "wallet.#", "#", "*.tick", "a.b.c", "Wallet.x", "a.b\n", "wallet.**"]
)
def test_what_is_no_pattern_is_refused(pattern: str):
    """A pattern that would never match, or match too much, is one clear sentence."""
    with pytest.raises(TopologyError, match="is no pattern"):
        binding_key(pattern)


def test_a_domain_pattern_takes_its_domain_only():
    """`wallet.*` does not take `wallets.opened`."""
    assert matches("wallet.*", "wallet.low_balance")
    assert not matches("wallet.*", "wallets.opened")
    assert matches("*", "market.tick")
    assert matches("market.tick", "market.tick")
    assert not matches("market.tick", "market.tick_2")
