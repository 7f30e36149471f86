"""Brings a running broker to another plan, without losing what is in it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from fleet.core.errors import TopologyError
from fleet.store import lane_moves, leases
from fleet.store.api import Lease, Store, Tx
from fleet.store.lane_moves import LaneMove
from topology.apply import apply, record
from topology.check import Difference, compare
from topology.management import Broker
from topology.model import Plan
from topology.renew import Renewer
from topology.resize import Resizer
from topology.site import Site
from topology.todo import Todo, todo

LEASE: Final = "topology"
TTL_MS: Final = 6_000
KEEP_S: Final = 1.5
POLL_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a migration did."""

    renewed: tuple[str, ...]
    """Queues that have their planned arguments now."""
    resized: tuple[str, ...]
    """Services whose lanes have their planned number now."""
    unbound: int
    """Bindings that were taken away."""
    declared: int
    """Exchanges, queues and bindings that are there now."""
    held: tuple[str, ...]
    """Queues left as they were, for consumers held messages of theirs too long."""
    left: tuple[Difference, ...]
    """What still is not as planned."""


async def todo_at(plan: Plan, store: Store, broker: Broker) -> Todo:
    """What a migration would do. Raises TopologyError where it must not begin."""
    under_way = await store.read(lane_moves.under_way)
    for move in under_way.values():
        planned = next((s.lanes for s in plan.services if s.name == move.service), None)
        if planned is None or planned.partitions != move.partitions:
            raise TopologyError(
                f"A migration of the {move.partitions} lanes of {move.service} was interrupted; run"
                f" it to its end first, with that service and PF_PARTITIONS={move.partitions}."
            )
    return todo(plan, broker, [each.service for each in under_way.values() if each.step != "renew"])


async def migrate(plan: Plan, site: Site) -> Migrated:
    """Do what there is to do; a second time there is nothing.

    Killed at any moment it can be run again, and goes on where it was. Raises TopologyError
    where somebody has to be stopped first, BrokerError where the broker is lost.
    """
    lease = await _lease(site)
    keeping = asyncio.create_task(_keep(site, lease))
    working = asyncio.create_task(_migrate(plan, site))
    try:
        await asyncio.wait([working, keeping], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            keeping.result()
        return await working
    finally:
        for task in (working, keeping):
            task.cancel()
        await asyncio.gather(working, keeping, return_exceptions=True)
        await site.store.run(partial(leases.release, lease=lease))


async def _migrate(plan: Plan, site: Site) -> Migrated:
    work = await todo_at(plan, site.store, await site.look())
    renewer = Renewer(site)
    resizer = Resizer(plan, site, renewer)
    lanes = [s for s in plan.services if any(r.service == s.name for r in work.renewals)]
    for resize in work.resizes:
        await resizer.resize(resize)
    for service in lanes:
        move = LaneMove(service.name, "renew", service.lanes.partitions if service.lanes else 0)
        await site.store.run(partial(lane_moves.begin, move=move, now_ms=site.now_ms()))
    held = await renewer.renew(work.renewals)
    for service in lanes:
        await site.store.run(partial(lane_moves.end, service=service.name))
    for each in work.unbind:
        unbind = site.admin.unbind_queue if each.to == "queue" else site.admin.unbind_exchange
        await unbind(each.destination, each.source, each.key, each.arguments)
    if held:
        return await _result(plan, site, work, held, 0)
    applied = await apply(plan, site.admin)
    await site.store.run(partial(_end, plan=plan, now_ms=site.now_ms()))
    return await _result(plan, site, work, [], applied.declared)


async def _result(
    plan: Plan, site: Site, work: Todo, held: Sequence[str], declared: int
) -> Migrated:
    return Migrated(
        renewed=tuple(r.queue.name for r in work.renewals if r.queue.name not in held),
        resized=tuple(each.service.name for each in work.resizes),
        unbound=len(work.unbind),
        declared=declared,
        held=tuple(held),
        left=tuple(compare(plan, await site.look())),
    )


def _end(tx: Tx, plan: Plan, now_ms: int) -> None:
    record(tx, plan, now_ms)
    for service in plan.services:
        lane_moves.end(tx, service.name)


async def _lease(site: Site) -> Lease:
    """Be the only one; who was killed a moment ago is waited for."""
    deadline = site.now_ms() + TTL_MS + 1000
    while site.now_ms() < deadline:
        lease = await site.store.run(
            lambda tx: leases.acquire(tx, LEASE, site.holder, site.now_ms(), TTL_MS)
        )
        if lease is not None:
            return lease
        await asyncio.sleep(POLL_S)
    raise TopologyError("Another `fleet topology migrate` is at work; let it come to its end.")


async def _keep(site: Site, lease: Lease) -> None:
    """Raise TopologyError once another has taken our place."""
    while True:
        await asyncio.sleep(KEEP_S)
        kept = await site.store.run(lambda tx: leases.renew(tx, lease, site.now_ms(), TTL_MS))
        if kept is None:
            raise TopologyError("Another `fleet topology migrate` has begun; this one ends.")
