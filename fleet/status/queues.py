"""What is in a service's queues, by passive declarations alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from fleet.amqp.looks import Depth
from fleet.status.state import Lanes, Queues, Shared
from topology import names

LaneOwner = tuple[str, str, str]
"""Service, queue, last owner."""


def wanted(services: Iterable[str], lanes: Iterable[LaneOwner]) -> list[str]:
    """The queues to ask the depth of."""
    found = [*names.PARKED, *(queue for _, queue, _ in lanes)]
    for service in services:
        found += [names.work_queue(service), names.failed(service), *_buckets(service).values()]
    return found


def of(service: str, depths: Mapping[str, Depth], lanes: Sequence[LaneOwner]) -> Queues:
    """What is in the queues of one service."""
    work = depths.get(names.work_queue(service))
    waiting = {bound: depths.get(queue) for bound, queue in _buckets(service).items()}
    return Queues(
        work=work.ready if work else None,
        consumers=work.consumers if work else 0,
        failed=_ready(depths, names.failed(service)),
        retries={bound: depth.ready for bound, depth in waiting.items() if depth and depth.ready},
        lanes=_lanes([lane for lane in lanes if lane[0] == service], depths),
    )


def shared(depths: Mapping[str, Depth]) -> Shared:
    """What is in the queues that belong to no service."""
    return Shared(_ready(depths, names.UNROUTED), _ready(depths, names.QUARANTINE))


def _buckets(service: str) -> dict[str, str]:
    """The retry buckets by the longest delay that each holds, in seconds."""
    return {
        f"{names.bucket_ms(number) / 1000:g}": names.retry(service, number)
        for number in range(names.BUCKETS)
    }


def _lanes(lanes: Sequence[LaneOwner], depths: Mapping[str, Depth]) -> Lanes:
    found = [depths[queue] for _, queue, _ in lanes if queue in depths]
    return Lanes(
        count=len(lanes),
        ready=sum(each.ready for each in found),
        unconsumed=sum(not each.consumers for each in found),
        owners=dict(sorted(Counter(owner for _, _, owner in lanes).items())),
    )


def _ready(depths: Mapping[str, Depth], queue: str) -> int | None:
    return depths[queue].ready if queue in depths else None
