"""Whether a service's handlers are fed: a worker that would starve does not start."""

from __future__ import annotations

from fleet.core.errors import TopologyError
from fleet.store import bindings, lane_moves
from fleet.store.api import Store
from workers.registry import Service


async def check_fed(service: Service, store: Store) -> None:
    """Raise TopologyError where no binding feeds a handler, or where lanes are other than bound."""
    layout = service.layout()
    await store.read(lambda tx: lane_moves.refuse_worker(tx, service.name))
    fed = await store.read(lambda tx: bindings.of(tx, service.name))
    missing = sorted(set(layout.fed) - (fed or frozenset()))
    if missing:
        raise TopologyError(
            f"Nothing feeds the handlers of {service.name} for {', '.join(missing)};"
            " run `fleet topology apply`."
        )
    bound = await store.read(lambda tx: bindings.partitions(tx, service.name))
    if layout.lanes and bound not in (None, layout.lanes.partitions):
        raise TopologyError(
            f"{service.name} was laid out with {bound} lanes, this worker has"
            f" {layout.lanes.partitions}; set PF_PARTITIONS to the same for `fleet topology apply`,"
            " `fleet publisher` and `fleet worker`."
        )
