"""What is withheld, and how long what is put off stays away: pure rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.store.controls import Controls, Halt, Pause
from topology.model import Lanes
from workers.context import Context
from workers.holds import LATEST_S, SOONEST_S, Hold, Holds
from workers.registry import Service


def pause(pattern: str) -> Pause:
    """A pause of the service."""
    return Pause("svc", pattern, "", "ada", 1_000)


def halt(handler: str) -> Halt:
    """A halt of the service."""
    return Halt("svc", handler, "f", "ValueError: odd", "w", "a", 2_000)


@pytest.fixture
def service() -> Service:
    """A service with lanes and two handlers of its work queue, one for a whole domain."""
    made = Service("svc", lanes=Lanes())
    for pattern, name in (
        ("market.tick", "on_tick"),
        ("order.requested", "on_order"),
        ("wallet.*", "on_wallet"),
    ):

        def function(_: Context, __: dict[str, Any]) -> None:
            """Be done."""

        function.__name__ = name
        made.handler(pattern)(function)
    return made


@pytest.mark.parametrize(
    ("patterns", "halted", "work", "lanes"),
    [
        ((), (), False, False),
        (("*",), (), True, True),
        (("market.tick",), (), False, True),
        (("market.*",), (), False, True),
        (("order.requested",), (), False, False),
        (("order.*", "wallet.*"), (), True, False),
        (("order.*", "wallet.low_balance"), (), False, False),
        (("order.*",), ("on_wallet",), True, False),
        ((), ("on_tick",), False, True),
    ],
)
def test_a_queue_is_closed_where_all_that_it_feeds_is_withheld(
    service: Service,
    patterns: tuple[str, ...],
    halted: tuple[str, ...],
    work: bool,
    lanes: bool,
):
    """Pauses and halts together; a pattern closes a handler only if it covers all of its types."""
    holds = Holds(service)
    holds.hear(Controls(tuple(map(pause, patterns)), tuple(map(halt, halted))))
    assert (holds.closes(is_lane=False), holds.closes(is_lane=True)) == (work, lanes)


def test_a_type_is_withheld_from_the_handler_that_has_it(service: Service):
    """One type of a domain is paused, its siblings pass; the reason says who paused it."""
    holds, wallet = Holds(service), service.handlers["wallet.*"]
    holds.hear(Controls((pause("wallet.low_balance"),)))
    assert holds.of("wallet.low_balance", wallet) == Hold(
        "paused: wallet.low_balance by ada", 1_000
    )
    assert holds.of("wallet.balance_changed", wallet) is None


def test_a_halt_holds_here_before_the_store_knows_it(service: Service):
    """Until it is written it stands beside what is heard; then the store decides."""
    holds, order = Holds(service), service.handlers["order.requested"]
    holds.halt(halt("on_order"))
    holds.hear(Controls())
    assert holds.of("order.requested", order) == Hold("halted: ValueError: odd", 2_000)
    holds.written(holds.unwritten()[0])
    holds.hear(Controls())
    assert holds.of("order.requested", order) is None
    assert not holds.any


@given(st.integers(-10_000, 10**10), st.floats(0, 1))
def test_what_is_put_off_comes_back_in_time(stood_ms: int, share: float):
    """Within a quarter of the time that the hold stands, 1 to 60 s, whatever the clocks say."""

    def uniform(low: float, high: float) -> float:
        return low + share * (high - low)

    put_off = Hold("why", 1_000).postponed(1_000 + stood_ms, uniform)
    longest = min(max(stood_ms / 4000, SOONEST_S), LATEST_S)
    assert longest / 2 <= put_off.delay <= longest
    assert put_off.reason == "why"
