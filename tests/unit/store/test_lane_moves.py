"""Lanes are moved while nobody fills or empties them: each side looks after it has said so."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fleet.core.errors import TopologyError
from fleet.store import Store, Tx, lane_moves, leases, replicas
from fleet.store.lane_moves import LaneMove, Step
from fleet.store.replicas import Pulse, Replica

NOW = 1_780_000_000_000


def begin(step: Step) -> Callable[[Tx], None]:
    """Begin this step of a move."""
    return lambda tx: lane_moves.begin(tx, LaneMove("svc", step, 4), NOW)


async def test_no_move_begins_beside_a_bridge(store: Store):
    """Its ticks would overtake; one whose lease is over, or given up, hinders nobody."""
    lease = await store.run(lambda tx: leases.acquire(tx, "bridge:a", "b", NOW - 1, 100))
    assert lease is not None
    for step in ("renew", "gather"):
        with pytest.raises(TopologyError, match="The bridge of a is at work"):
            await store.run(begin(step))
        assert await store.read(lane_moves.under_way) == {}
    await store.run(begin("spread"))
    await store.run(lambda tx: lane_moves.end(tx, "svc"))
    await store.run(lambda tx: leases.release(tx, lease))
    await store.run(begin("gather"))


async def test_keys_get_no_other_lanes_beside_a_worker(store: Store):
    """One that has only just begun consumes nothing yet, and would in a moment."""
    me = Replica("worker", "w1", "i", "svc", "h", 1, "0", NOW, NOW, Pulse("unready"))
    await store.run(lambda tx: replicas.beat(tx, me))
    with pytest.raises(TopologyError, match=r"w1 is at work.*stop the workers of svc"):
        await store.run(begin("gather"))
    await store.run(begin("renew"))
    await store.run(lambda tx: replicas.leave(tx, me))
    await store.run(begin("gather"))
