"""What has to be done to bring a running broker to another plan. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from topology import names
from topology.check import Difference, compare
from topology.management import Broker, Found
from topology.model import Binding, Plan, Queue, ServiceLayout

_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Renewal:
    """A queue to be made anew under its own name, with everything that is in it."""

    queue: Queue
    """As it is planned."""
    bindings: tuple[Binding, ...]
    """What is planned to lead to it."""
    found: tuple[Binding, ...]
    """What leads to it now."""
    service: str = ""
    """Whose lane it is, if it is one: then its events have to stay in order."""


@dataclass(frozen=True, slots=True)
class Resize:
    """The lanes of a service, to be made anew in another number."""

    service: ServiceLayout
    """As it is planned."""
    found: tuple[str, ...]
    """The lanes that are there."""


@dataclass(frozen=True, slots=True)
class Todo:
    """Everything that a migration does, in this order, before what is missing is declared."""

    resizes: tuple[Resize, ...]
    """Lanes in another number."""
    renewals: tuple[Renewal, ...]
    """Queues with other arguments, and those on which a migration was interrupted."""
    unbind: tuple[Binding, ...]
    """Bindings that nobody planned."""
    left: tuple[Difference, ...]
    """What a person has to change: no migration does."""


def todo(plan: Plan, broker: Broker, begun: Collection[str] = ()) -> Todo:
    """What leads from what the management API found to the plan.

    `begun` are the services whose lanes are already being made in another number.
    """
    differences, bindings = compare(plan, broker), tuple(_found(broker))
    resizes = tuple(_resizes(plan, broker, begun))
    resized = {each.service.name for each in resizes}
    lanes = {lane for each in resizes for lane in (*each.found, *each.service.lane_queues)}
    odd = {each.name for each in differences if each.what == "queue" and each.kind == "different"}
    odd |= {each["name"].removesuffix(_MOVING) for each in broker.queues if _is_moving(each)}
    renewals = tuple(
        Renewal(
            queue,
            _leading_to(plan.bindings, queue.name),
            _leading_to(bindings, queue.name),
            _lane_of(plan, queue.name),
        )
        for queue in plan.queues
        if queue.name in odd - lanes and not is_stream(queue)
    )
    renewed = {each.queue.name for each in renewals}
    unbind = tuple(
        each
        for each in _superfluous(plan, broker)
        if each.destination not in renewed | lanes and each.source not in _headers(plan, resized)
    )
    return Todo(resizes, renewals, unbind, tuple(_left(plan, differences, lanes)))


def lanes_found(service: ServiceLayout, broker: Broker) -> tuple[str, ...]:
    """The lanes of a service that are there or just being made anew, by their numbers."""
    if service.lanes is None:
        return ()
    stem = names.lanes_exchange(service.name, service.lanes.type) + "."
    there = {str(queue["name"]).removesuffix(_MOVING) for queue in broker.queues}
    tails = (name.removeprefix(stem) for name in there if name.startswith(stem))
    numbers = sorted(int(tail) for tail in tails if _NUMBER.fullmatch(tail))
    return tuple(f"{stem}{number}" for number in numbers)


_MOVING: Final = names.moving("")


def _is_moving(found: Found) -> bool:
    return str(found["name"]).endswith(_MOVING)


def is_stream(queue: Queue) -> bool:
    """Whether it is the log: its history can be kept in no other queue."""
    return queue.arguments.get("x-queue-type") == "stream"


def _resizes(plan: Plan, broker: Broker, begun: Collection[str]) -> Iterator[Resize]:
    for service in plan.services:
        if service.lanes is None:
            continue
        found = lanes_found(service, broker)
        if service.name in begun or (found and len(found) != service.lanes.partitions):
            yield Resize(service, found)


def _lane_of(plan: Plan, queue: str) -> str:
    return next((each.name for each in plan.services if queue in each.lane_queues), "")


def _leading_to(bindings: Iterable[Binding], queue: str) -> tuple[Binding, ...]:
    return tuple(b for b in bindings if b.to == "queue" and b.destination == queue)


def _headers(plan: Plan, services: set[str]) -> set[str]:
    return {
        names.lanes_exchange(each.name, each.lanes.type)
        for each in plan.services
        if each.lanes and each.name in services
    }


def _superfluous(plan: Plan, broker: Broker) -> Iterator[Binding]:
    """Bindings to our queues and exchanges that are not planned."""
    planned = {_way(each) for each in plan.bindings}
    ours = {("queue", each.name) for each in plan.queues}
    ours |= {("exchange", each.name) for each in plan.exchanges}
    for each in _found(broker):
        if (each.to, each.destination) in ours and _way(each) not in planned:
            yield each


def _found(broker: Broker) -> Iterator[Binding]:
    """The bindings that are there, but for those of the default exchange."""
    for found in broker.bindings:
        if found["source"]:
            yield Binding(
                found["source"],
                found["destination_type"],
                found["destination"],
                found["routing_key"],
                dict(found["arguments"]),
            )


def _way(each: Binding) -> tuple[object, ...]:
    return (each.source, each.to, each.destination, each.key, *sorted(each.arguments.items()))


def _left(plan: Plan, differences: list[Difference], lanes: set[str]) -> Iterator[Difference]:
    """What is different and no queue to be made anew, and what is too many and no lane."""
    queues = {queue.name for queue in plan.queues if not is_stream(queue)}
    for each in differences:
        if each.what == "binding" or each.name in lanes or _MOVING in each.name:
            continue
        if each.kind == "superfluous" or (each.kind == "different" and each.name not in queues):
            yield each
