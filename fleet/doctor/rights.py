"""Whether the broker's user may do what its part of the fleet needs, and nothing else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final

from fleet.amqp.rights import Rights
from fleet.doctor.finding import Finding, worst_or
from topology import names
from topology.model import Plan
from topology.users import User, users

SHOWN: Final = 3
_FIX: Final = "`fleet topology users --apply` gives each user what it needs."


@dataclass(frozen=True, slots=True)
class Right:
    """One thing that a user may or may not do."""

    what: str
    """To do what, in words."""
    needed: bool
    """Whether its part of the fleet has to."""
    granted: bool
    """Whether the broker lets it."""


def part(plan: Plan, name: str) -> User | None:
    """The part of the fleet that a user of this name is for, after any prefix; None: for none."""
    fitting = (
        each
        for each in users(plan)
        if re.fullmatch(rf"(?s:.*[^A-Za-z0-9])?{re.escape(each.name)}", name)
    )
    return max(fitting, key=lambda each: len(each.name), default=None)


async def tried(plan: Plan, user: User, rights: Rights) -> AsyncIterator[Right]:
    """What our user may do of all there is, beside what `user` needs. Raises BrokerError."""
    first = plan.exchanges[0]
    may = await rights.may_declare(first.name, first.kind, first.arguments)
    if may is not None:
        yield Right("declare and delete", bool(re.search(user.configure, first.name)), may)
    for exchange in plan.exchanges:
        may = await rights.may_publish(exchange.name)
        if may is not None:
            needed = bool(re.search(user.write, exchange.name))
            yield Right(f"publish to {exchange.name}", needed, may)
    for queue in _queues(plan):
        may = await rights.may_take(queue)
        if may is not None:
            yield Right(f"take from {queue}", bool(re.search(user.read, queue)), may)


def judge(name: str, user: User, found: Iterable[Right]) -> list[Finding]:
    """What it means for the user `name`, who is to be `user`."""
    rights = list(found)
    less = [each.what for each in rights if each.needed and not each.granted]
    more = [each.what for each in rights if each.granted and not each.needed]
    found_wrong = []
    if less:
        text = f"{name!r} may not {_some(less)}, which {user.name} has to."
        found_wrong.append(Finding("rights", "fail", text, _FIX))
    if more:
        text = f"{name!r} may {_some(more)}, which {user.name} need not."
        found_wrong.append(Finding("rights", "warn", text, _FIX))
    well = f"{name!r} may do what {user.name} has to, and nothing else."
    return worst_or(found_wrong, "rights", well)


def _queues(plan: Plan) -> list[str]:
    """One of each kind."""
    found = [names.LOG, names.UNROUTED, names.QUARANTINE]
    for service in plan.services:
        found += [names.work_queue(service.name), names.failed(service.name)]
        found.append(names.retry(service.name, 0))
        if service.lanes:
            found.append(names.lane(service.name, service.lanes.type, 0))
    return found


def _some(what: list[str]) -> str:
    more = f" and {len(what) - SHOWN} more" if len(what) > SHOWN else ""
    return ", ".join(what[:SHOWN]) + more
