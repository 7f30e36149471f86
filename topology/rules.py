"""What a layout must keep to before it is planned."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from fleet.core.errors import TopologyError
from topology import names
from topology.model import Plan, ServiceLayout
from topology.patterns import binding_key, matches

MAX_PARTITIONS: Final = 256
MAX_BUCKETS: Final = 16
MIN_DELIVERY_LIMIT: Final = 20
_NAME: Final = re.compile(r"(?=.{1,100}\Z)[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)*")


def check_service(service: ServiceLayout) -> None:
    """Raise TopologyError where the service cannot be laid out as it asks."""
    if not _NAME.fullmatch(service.name):
        raise TopologyError(
            f"{service.name!r} is no service name; write up to 100 lower-case letters, digits,"
            " _ and -, in words with dots between them."
        )
    _check_ranges(service)
    if not service.fed:
        raise TopologyError(f"Service {service.name} has no pattern, so nothing would reach it.")
    for pattern in service.fed:
        binding_key(pattern)
    _check_lanes(service)


def _check_ranges(service: ServiceLayout) -> None:
    limits = service.limits
    partitions = service.lanes.partitions if service.lanes else 1
    for what, value, low, high in (
        ("buckets", service.buckets, 1, MAX_BUCKETS),
        ("lanes.partitions", partitions, 1, MAX_PARTITIONS),
        ("limits.max_length", limits.max_length, 1, 2**31 - 1),
        ("limits.lane_max_length", limits.lane_max_length, 1, 2**31 - 1),
        ("limits.max_bytes", limits.max_bytes, 1 << 20, 2**40),
        ("limits.lane_max_bytes", limits.lane_max_bytes, 1 << 20, 2**40),
        ("limits.ttl_ms", limits.ttl_ms, 1000, 2**31 - 1),
        ("limits.delivery_limit", limits.delivery_limit, MIN_DELIVERY_LIMIT, 2**31 - 1),
    ):
        if not low <= value <= high:
            raise TopologyError(
                f"Service {service.name}: {what} is {value}, allowed are {low} to {high}."
            )


def _check_lanes(service: ServiceLayout) -> None:
    if not service.lanes:
        return
    if service.lanes.type.endswith("*"):
        raise TopologyError(f"Service {service.name}: lanes carry one event type, not a pattern.")
    for pattern in service.fed:
        if pattern != service.lanes.type and matches(pattern, service.lanes.type):
            raise TopologyError(
                f"Service {service.name}: pattern {pattern} also matches {service.lanes.type},"
                " which its lanes carry, so it would come twice; name the other types one by one."
            )


def check_unique(whole: Plan) -> None:
    """Raise TopologyError where two services ask for one name, or one for an exchange's."""
    for objects, kind in ((whole.exchanges, "exchange"), (whole.queues, "queue")):
        for name, count in Counter(each.name for each in objects).items():
            if count > 1:
                raise TopologyError(
                    f"Two services ask for the {kind} {name}; give one of them another name."
                )
    shared = {names.UNROUTED, names.QUARANTINE}
    for name in sorted({e.name for e in whole.exchanges} & {q.name for q in whole.queues} - shared):
        # Permissions go by name: who may look at the queue could publish to the exchange.
        raise TopologyError(f"{name} is an exchange of the fleet; give the service another name.")
