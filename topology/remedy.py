"""What would be done about each difference, and by which command. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from topology import names
from topology.check import Difference
from topology.model import Plan, ServiceLayout
from topology.todo import is_stream

BY_HAND: Final = "left to you"


def remedies(
    plan: Plan, differences: Sequence[Difference], waiting: Mapping[str, int]
) -> list[str]:
    """For each difference what `apply` or `migrate` would do; empty where nothing is known.

    `waiting` says how many messages are in each queue that differs or is too many.
    """
    resized = _resized(plan, differences)
    return [_remedy(plan, each, resized, waiting) for each in differences]


def moved(differences: Sequence[Difference]) -> list[str]:
    """The queues whose messages a migration might move."""
    return [d.name for d in differences if d.what == "queue" and d.kind in _HOLDING]


_HOLDING: Final = frozenset({"different", "superfluous"})


def _remedy(
    plan: Plan, each: Difference, resized: Sequence[str], waiting: Mapping[str, int]
) -> str:
    if each.kind == "not verified":
        return ""
    if each.what == "user":
        return BY_HAND if each.kind == "superfluous" else "`users --apply` sets it"
    if any(each.name.startswith(stem) or f" {stem}" in each.name for stem in resized):
        return f"`migrate` makes the lanes anew{_count(each, waiting)}"
    if each.kind == "missing":
        return "`apply` adds it"
    return _by_migration(plan, each, waiting) or BY_HAND


def _by_migration(plan: Plan, each: Difference, waiting: Mapping[str, int]) -> str:
    if each.what == "binding":
        return "`migrate` takes it away"
    if each.name.endswith(names.moving("")):
        return f"`migrate` brings it to its end{_count(each, waiting)}"
    renewed = {queue.name for queue in plan.queues if not is_stream(queue)}
    if each.kind == "different" and each.name in renewed:
        return f"`migrate` makes it anew{_count(each, waiting)}"
    return ""


def _count(each: Difference, waiting: Mapping[str, int]) -> str:
    count = waiting.get(each.name)
    return "" if count is None else f" and moves {count:,} messages"


def _resized(plan: Plan, differences: Sequence[Difference]) -> list[str]:
    """What the lanes are called of the services that have another number of them."""
    missing = {d.name for d in differences if d.what == "queue" and d.kind == "missing"}
    many = {d.name for d in differences if d.what == "queue" and d.kind == "superfluous"}
    return [_stem(each) for each in plan.services if _is_other(each, missing, many)]


def _is_other(service: ServiceLayout, missing: set[str], many: set[str]) -> bool:
    lanes = set(service.lane_queues)
    too_few = 0 < len(lanes & missing) < len(lanes)
    return bool(lanes) and (too_few or any(name.startswith(_stem(service)) for name in many))


def _stem(service: ServiceLayout) -> str:
    of_type = service.lanes.type if service.lanes else ""
    return names.lanes_exchange(service.name, of_type) + "."
