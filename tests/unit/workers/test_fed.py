"""A worker that would starve does not start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from fleet.core.errors import TopologyError
from fleet.store import Tx, bindings, lane_moves, open_store
from fleet.store.lane_moves import LaneMove
from fleet.store.watched import Watched
from topology.model import Lanes
from workers.context import Context
from workers.fed import check_fed
from workers.registry import Service
from workers.settings import WorkerSettings
from workers.worker import Worker

T = TypeVar("T")


def made(partitions: int) -> Service:
    """A service of one lane handler."""
    service = Service("agent", lanes=Lanes(partitions=partitions))

    @service.handler("market.tick")
    def tick(ctx: Context, payload: dict[str, object]) -> None:
        """Do nothing."""

    return service


async def test_other_lanes_than_were_laid_out(tmp_path: Path):
    """Too few lanes would leave ticks lying, too many would wait for ever; unknown is fine."""
    store = open_store(f"sqlite:///{tmp_path}/store")
    await store.open()
    try:
        await store.run(lambda tx: bindings.record(tx, "agent", ["market.tick"], 0))
        await check_fed(made(8), store)
        await store.run(lambda tx: bindings.record(tx, "agent", ["market.tick"], 0, partitions=16))
        await check_fed(made(16), store)
        with pytest.raises(TopologyError, match=r"laid out with 16 lanes.*has 8;.*PF_PARTITIONS"):
            await check_fed(made(8), store)
    finally:
        await store.close()


class Moved(Watched):
    """A store in which lanes begin to be moved just before a worker says that it is there."""

    async def run(self, work: Callable[[Tx], T]) -> T:
        """Begin the move, once, and do the work."""
        if not await self.read(lane_moves.under_way):
            move = LaneMove("agent", "gather", 4)
            await super().run(lambda tx: lane_moves.begin(tx, move, 1))
        return await super().run(work)


async def test_lanes_that_begin_to_be_moved_as_a_worker_begins(tmp_path: Path):
    """It looked before that, and was not to be seen yet: it looks once more, and consumes none."""
    store = open_store(f"sqlite:///{tmp_path}/store")
    await store.open()
    await store.run(lambda tx: bindings.record(tx, "agent", ["market.tick"], 0, partitions=8))
    settings = WorkerSettings(worker_name="w1", amqp_url="amqp://127.0.0.1:1/")
    worker = Worker(made(8), settings, Moved(store))
    with pytest.raises(TopologyError, match="The lanes of agent are being moved"):
        await worker.run(asyncio.Event())
    await store.close()
