"""A bridge and services that differ in their lanes do not start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fleet.amqp.connection import Link
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.errors import TopologyError
from fleet.store import Tx, bindings, lane_moves, leases, open_store
from fleet.store.lane_moves import LaneMove
from publisher.bridge import Bridge
from publisher.lanes import check_lanes
from publisher.lease import Leadership
from publisher.settings import Limits
from publisher.sources.stream import StreamSource

NAME = "bridge:a"


async def test_another_number_of_lanes_is_refused(tmp_path: Path):
    """The sentence names the service, both numbers and the variable; equal or unknown is fine."""
    store = open_store(f"sqlite:///{tmp_path}/store")
    await store.open()
    try:
        await check_lanes(store, 16)
        await store.run(lambda tx: bindings.record(tx, "risk", ["*"], 0))
        await store.run(lambda tx: bindings.record(tx, "agent", ["*"], 0, partitions=8))
        await check_lanes(store, 8)
        with pytest.raises(TopologyError, match=r"PF_PARTITIONS is 16 .*agent .* with 8;") as told:
            await check_lanes(store, 16)
        assert "risk" not in str(told.value)
    finally:
        await store.close()


async def test_a_standby_that_is_refused_leaves_the_lease_to_others(tmp_path: Path):
    """Lanes began to move while it stood by: it ends, and no lease says that it leads."""
    store = open_store(f"sqlite:///{tmp_path}/store")
    await store.open()
    first = await store.run(lambda tx: leases.acquire(tx, NAME, "first", 0, 1 << 60))
    assert first is not None

    def move(tx: Tx) -> None:
        leases.release(tx, first)
        lane_moves.begin(tx, LaneMove("svc", "spread", 4), 0)

    bridge = Bridge(
        StreamSource("ws://127.0.0.1:1/", "pf_live_x", "a"),
        ConfirmedPublisher(Link("amqp://127.0.0.1:1/", "never started")),
        store,
        Leadership(store, NAME, "second"),
        Limits(),
    )
    running = asyncio.create_task(bridge.run())
    await asyncio.sleep(0.2)  # it may have looked by then, or not: both end alike
    await store.run(move)
    with pytest.raises(TopologyError, match="The lanes of svc are being moved"):
        async with asyncio.timeout(60):
            await running
    (left,) = await store.read(lambda tx: leases.beginning(tx, NAME))
    assert left.holder == ""
    await store.close()
