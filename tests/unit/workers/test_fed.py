"""A worker that would starve does not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.core.errors import TopologyError
from fleet.store import bindings, open_store
from topology.model import Lanes
from workers.context import Context
from workers.registry import Service
from workers.worker import check_fed


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
