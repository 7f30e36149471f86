"""What is made of what the broker and the workers say."""

from __future__ import annotations

import pytest

from fleet.amqp.looks import Depth
from fleet.status import queues
from fleet.status.handlers import lines, quantile
from fleet.status.state import Group, Lanes, Shared, State
from fleet.status.stored import groups

BOUNDS = (0.1, 1.0, 10.0)


@pytest.mark.parametrize(
    ("counts", "share", "bound"),
    [
        ({}, 0.5, None),
        ({0: 1}, 0.5, 0.1),
        ({0: 50, 1: 50}, 0.5, 0.1),
        ({0: 49, 1: 51}, 0.5, 1.0),
        ({0: 98, 2: 2}, 0.99, 10.0),
        ({3: 1}, 0.5, None),
    ],
)
def test_a_quantile_is_the_bound_of_its_bucket(
    counts: dict[int, int], share: float, bound: float | None
):
    """None where nothing was counted, or beyond the last bound."""
    assert quantile(counts, share, BOUNDS) == bound


def test_handlers_are_joined_over_the_live_workers(state: State):
    """Rates and counts add up; the one that was killed is left out; a halt is marked."""
    order, tick = sorted(lines(state), key=lambda line: line.handler)
    assert (tick.workers, tick.rate, tick.postponed, tick.halted) == (2, 800.0, 5, False)
    assert (order.workers, order.failed, order.retried, order.halted) == (1, 14, 3, True)
    assert order.p50_s is not None
    assert order.p99_s is not None
    assert order.p50_s < order.p99_s


def test_failures_are_grouped_by_handler_and_type():
    """Texts differ by their numbers; the newest stands for its group, the largest come first."""
    failures = [("h", "ValueError: 3", 30), ("g", "KeyError: x", 20), ("h", "ValueError: 1", 10)]
    assert groups(failures) == (
        Group("h", "ValueError: 3", 2, 30),
        Group("g", "KeyError: x", 1, 20),
    )


def test_depths_are_sorted_by_what_the_queues_are_for():
    """Buckets that are empty are left out; a queue that is not there has no depth."""
    lanes = [("svc", "pf.svc.ticks.0", "w"), ("svc", "pf.svc.ticks.1", "w"), ("x", "pf.x.t.0", "v")]
    depths = {
        "pf.svc": Depth(7, 2),
        "pf.svc.retry.00": Depth(0, 0),
        "pf.svc.retry.02": Depth(5, 0),
        "pf.svc.ticks.0": Depth(3, 1),
        "pf.svc.ticks.1": Depth(4, 0),
        "pf.unrouted": Depth(1, 0),
    }
    found = queues.of("svc", depths, lanes)
    assert (found.work, found.consumers, found.failed) == (7, 2, None)
    assert found.retries == {"1": 5}
    assert found.lanes == Lanes(2, 7, 1, {"w": 2})
    assert queues.shared(depths) == Shared(1, None)
    assert set(depths) <= set(queues.wanted(["svc"], lanes))
