"""Brings the broker to the plan: declares what is missing, changes nothing that is there."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.amqp.admin import Admin
from fleet.store import Tx, bindings
from topology.model import Binding, Exchange, Plan, Queue


@dataclass(frozen=True, slots=True)
class Applied:
    """What the broker now has."""

    declared: int
    """Exchanges, queues and bindings, new or there before."""
    patterns: dict[str, tuple[str, ...]]
    """For each service the fleet patterns that now reach it."""


async def apply(plan: Plan, admin: Admin) -> Applied:
    """Declare the plan, in its order; a second time changes nothing.

    Raises TopologyError at the first object that is there with another value, naming both;
    BrokerError where the broker cannot be reached or refuses.
    """
    declared = 0
    for each in plan:
        await _declare(each, admin)
        declared += 1
    return Applied(declared, {service.name: service.fed for service in plan.services})


def record(tx: Tx, plan: Plan, now_ms: int) -> None:
    """Write down what reaches each service, and in how many lanes.

    AMQP cannot be asked, and a worker that nothing reaches must not start.
    """
    for service in plan.services:
        partitions = service.lanes.partitions if service.lanes else None
        bindings.record(tx, service.name, service.fed, now_ms, partitions=partitions)


async def _declare(each: Exchange | Queue | Binding, admin: Admin) -> None:
    if isinstance(each, Exchange):
        await admin.declare_exchange(each.name, each.kind, each.arguments)
    elif isinstance(each, Queue):
        await admin.declare_queue(each.name, each.arguments)
    else:
        bind = admin.bind_queue if each.to == "queue" else admin.bind_exchange
        await bind(each.destination, each.source, each.key, each.arguments)
