"""Who is at work, as status knows it: replicas, lanes, the bridge, what is withheld."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from fleet.amqp.looks import Depth
from fleet.doctor.finding import Finding
from fleet.status.state import State
from fleet.store.controls import ALL
from fleet.store.replicas import Replica
from topology import names
from topology.model import ServiceLayout

_STARTS: Final = "Start `fleet worker`."
_PAUSED: Final = "`fleet resume` lets it go on."
_HALTED: Final = "Mend it, then `fleet handlers release`."


def at_work(
    state: State, services: Sequence[ServiceLayout], depths: Mapping[str, Depth]
) -> Iterator[Finding]:
    """What the rows of the replicas and the consumers of the queues say of these services."""
    live = [each for each in state.replicas if each.is_live(state.at_ms)]
    yield from _silent(state)
    for service in services:
        name = service.name
        workers = [each for each in live if each.kind == "worker" and each.service == name]
        yield from _workers(name, workers)
        if workers:
            yield from _queues(service, depths, withheld=is_withheld(state, name))
    yield _bridge(state)
    for pause in state.pauses:
        text = f"{pause.pattern} of {pause.service} is paused by {pause.operator}."
        yield Finding("paused", "warn", text, _PAUSED)
    for halt in state.halts:
        text = f"{halt.handler} of {halt.service} is halted: {halt.reason}."
        yield Finding("halted", "warn", text, _HALTED)


def is_withheld(state: State, service: str) -> bool:
    """Whether an operator withholds events from the workers of a service."""
    return any(each.service in (service, ALL) for each in state.pauses)


def _silent(state: State) -> Iterator[Finding]:
    for each in state.replicas:
        if not each.is_live(state.at_ms):
            ago = (state.at_ms - each.at_ms) // 1000
            text = f"The {each.kind} {each.name} fell silent {ago} s ago without a clean end."
            yield Finding("replicas", "warn", text, "Look into its log; start it again.")


def _workers(service: str, workers: Sequence[Replica]) -> Iterator[Finding]:
    if not workers:
        yield Finding("replicas", "warn", f"No worker of {service} is at work.", _STARTS)
        return
    unready = [each for each in workers if each.pulse.state == "unready"]
    for each in unready:
        text = f"The worker {each.name} is not ready: {each.pulse.note or 'no reason given'}."
        yield Finding("replicas", "warn", text, "Look into its log.")
    if not unready:
        yield Finding("replicas", "ok", f"{len(workers)} at work for {service}.")


def _queues(
    service: ServiceLayout, depths: Mapping[str, Depth], *, withheld: bool
) -> Iterator[Finding]:
    fix = "Look into a worker's log; restart it."
    work = depths.get(names.work_queue(service.name))
    if work is not None and not work.consumers and not withheld:
        text = f"Nobody consumes the work queue of {service.name}, though workers are at work."
        yield Finding("lanes", "fail", text, fix)
    lanes = [depths[each] for each in service.lane_queues if each in depths]
    alone = sum(not each.consumers for each in lanes)
    if alone and not withheld:
        text = f"{alone} of {len(lanes)} lanes of {service.name} have no consumer."
        yield Finding("lanes", "fail", text, fix)
    elif lanes and not alone:
        yield Finding("lanes", "ok", f"All {len(lanes)} lanes of {service.name} have a consumer.")


def _bridge(state: State) -> Finding:
    leading = [each for each in state.leases if each.holder and each.expires_at_ms > state.at_ms]
    if leading:
        names = ", ".join(each.name.partition(":")[2] for each in leading)
        return Finding("bridge", "ok", f"A bridge leads for {names}.")
    return Finding(
        "bridge", "warn", "No bridge leads: no event comes in.", "Start `fleet publisher`."
    )
