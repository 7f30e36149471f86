"""What each handler does, over all live workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from fleet.status.state import State
from fleet.store.replicas import Replica, Work
from fleet.telemetry.metrics import HANDLING_S


class Line(msgspec.Struct, frozen=True):
    """One handler over the last half minute; rates are deliveries a second.

    Half, and 99 of 100, of its calls took no longer than `p50_s` and `p99_s` seconds: the bounds
    of their buckets; None: it was not called, or it took longer than the last bound.
    """

    service: str
    handler: str
    workers: int
    rate: float
    p50_s: float | None
    p99_s: float | None
    failed: int
    retried: int
    postponed: int
    halted: bool


def lines(state: State) -> list[Line]:
    """Every handler of the live workers, the busiest first."""
    at_work: dict[tuple[str, str], list[tuple[Work, float]]] = {}
    for replica in state.replicas:
        if replica.kind == "worker" and replica.is_live(state.at_ms):
            for name, work in replica.pulse.handlers.items():
                at_work.setdefault((replica.service, name), []).append((work, _window(replica)))
    halted = {(each.service, each.handler) for each in state.halts}
    found = [_line(*at, works, halted=at in halted) for at, works in at_work.items()]
    return sorted(found, key=lambda line: (-line.rate, line.service, line.handler))


def quantile(
    counts: Mapping[int, int], share: float, bounds: Sequence[float] = HANDLING_S
) -> float | None:
    """The upper bound of the bucket in which this share (0 to 1) of what was counted is reached."""
    wanted, seen = share * sum(counts.values()), 0
    for number in sorted(counts):
        seen += counts[number]
        if seen >= wanted:
            return bounds[number] if number < len(bounds) else None
    return None


def _line(service: str, handler: str, works: Sequence[tuple[Work, float]], *, halted: bool) -> Line:
    took: Counter[int] = Counter()
    for work, _ in works:
        took.update(work.took)
    rate = sum((each.done + each.failed + each.retried) / window for each, window in works)
    return Line(
        service=service,
        handler=handler,
        workers=len(works),
        rate=round(rate, 2),
        p50_s=quantile(took, 0.5),
        p99_s=quantile(took, 0.99),
        failed=sum(each.failed for each, _ in works),
        retried=sum(each.retried for each, _ in works),
        postponed=sum(each.postponed for each, _ in works),
        halted=halted,
    )


def _window(replica: Replica) -> float:
    return max(replica.pulse.window_s, 1.0)
