"""Who may do what on the broker: every user of the fleet on one page.

A permission is three patterns. *Configure* is to declare and delete, *write* to publish to an
exchange, *read* to consume, get and purge a queue. What the broker moves itself needs none of them:
expired messages, alternate exchanges.

To look how much is in a queue needs none up to 4.2.5, and any one since 4.2.7 and 4.3.1. So who
looks may "write" to queues: nobody can publish to a queue, so that lets in nothing else. (4.2.6 and
4.3.0 want *configure*, which is to delete: with these users they do not work.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from topology import names
from topology.model import Plan, ServiceLayout

Tag = Literal["", "management", "monitoring"]

NOTHING: Final = "^$"
FLEET: Final = r"^pf\."


@dataclass(frozen=True, slots=True)
class User:
    """One user of one virtual host, without a password."""

    name: str
    """Unique on the broker."""
    configure: str
    """What it may declare, bind and delete: a pattern for names."""
    write: str
    """The exchanges to which it may publish."""
    read: str
    """The queues from which it may consume."""
    tag: Tag
    """What it sees of the management API: nothing, its virtual host, or all figures."""
    note: str
    """Whose it is."""


def users(plan: Plan, prefix: str = "") -> tuple[User, ...]:
    """The users of a fleet; a service's workers have one of their own where there are several.

    `prefix` stands in front of each name: users belong to the broker, not to a virtual host.
    """
    return tuple(replace(user, name=prefix + user.name) for user in _users(plan))


def _users(plan: Plan) -> tuple[User, ...]:
    alone = len(plan.services) == 1
    return (
        _topology(),
        _bridge(),
        *(_worker(each, "worker" if alone else f"worker.{each.name}") for each in plan.services),
        _operator(plan),
        _monitor(plan),
    )


def _topology() -> User:
    """Lays out and migrates: all that has a name of the fleet's."""
    return User("topology", FLEET, FLEET, FLEET, "management", "fleet topology")


def _bridge() -> User:
    write = _one_of(names.INGEST, names.QUARANTINE)
    return User("bridge", NOTHING, write, NOTHING, "", "fleet publisher")


def _worker(service: ServiceLayout, name: str) -> User:
    """Emits, delays and fails; takes from its own work queue and lanes, however many they are."""
    write = _one_of(names.INGEST, names.REDELIVER, names.DLX)
    read = [re.escape(names.work_queue(service.name))]
    if service.lanes:
        lanes = names.lanes_exchange(service.name, service.lanes.type)
        read.append(rf"{re.escape(lanes)}\.[0-9]+")
    note = f"fleet worker, for {service.name}"
    return User(name, NOTHING, write, f"^({'|'.join(read)})$", "", note)


def _operator(plan: Plan) -> User:
    """Takes what failed, and sends it home; nobody's work queue is his."""
    # What nobody wanted goes back to those who want it now, past the log.
    write = _one_of(names.REDELIVER, names.DLX, names.EVENTS, seen=_seen(plan))
    failed = (names.failed(each.name) for each in plan.services)
    read = _one_of(names.LOG, names.UNROUTED, names.QUARANTINE, *failed)
    return User("operator", NOTHING, write, read, "management", "fleet failed, fleet audit")


def _monitor(plan: Plan) -> User:
    """Counts; `pf.unrouted` and `pf.quarantine`, which are exchanges too, through the API only."""
    failed = (names.failed(each.name) for each in plan.services)
    write = _one_of(names.LOG, *failed, seen=_seen(plan))
    return User("monitor", NOTHING, write, NOTHING, "monitoring", "counts, never a message")


def _seen(plan: Plan) -> list[str]:
    """Patterns of the queues that only workers take from; none is an exchange's name."""
    found: list[str] = []
    for service in plan.services:
        work = re.escape(names.work_queue(service.name))
        found += [work, rf"{work}\.retry\.[0-9]+"]
        if service.lanes:
            lanes = names.lanes_exchange(service.name, service.lanes.type)
            found.append(rf"{re.escape(lanes)}\.[0-9]+")
    return found


def _one_of(*allowed: str, seen: Sequence[str] = ()) -> str:
    return f"^({'|'.join([*map(re.escape, allowed), *seen])})$"
