"""A bridge and services that differ in their lanes do not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.core.errors import TopologyError
from fleet.store import bindings, open_store
from publisher.lanes import check_lanes


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
