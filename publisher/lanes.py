"""Whether the bridge spreads ticks over as many lanes as the services have."""

from __future__ import annotations

from fleet.core.errors import TopologyError
from fleet.store import bindings, lane_moves
from fleet.store.api import Store


async def check_lanes(store: Store, partitions: int) -> None:
    """Raise TopologyError where a service has another number of lanes, or is just getting one.

    Ticks would go to lanes that nobody has, or never to some that wait for them.
    """
    await store.read(lane_moves.refuse_bridge)
    counts = await store.read(bindings.lane_counts)
    others = [f"{name} was laid out with {n}" for name, n in counts.items() if n != partitions]
    if others:
        raise TopologyError(
            f"PF_PARTITIONS is {partitions} here, but {' and '.join(sorted(others))};"
            " set it to the same for `fleet topology apply`, `fleet publisher` and `fleet worker`."
        )
