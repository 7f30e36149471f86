"""Compares plan and broker, and names each difference."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fleet.amqp.admin import Admin, Inequivalent, Refused
from topology import names
from topology.management import Access, Broker, Found
from topology.model import Binding, Exchange, Plan, Queue
from topology.users import User

Way: TypeAlias = tuple[str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which plan and broker differ, or that could not be seen."""

    kind: Literal["missing", "different", "superfluous", "not verified"]
    """What is wrong with it."""
    what: Literal["exchange", "queue", "binding", "user"]
    """What it is."""
    name: str
    """Its name; a binding's way."""
    detail: str = ""
    """The value planned and the value found, or why it could not be seen."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.what} {self.name}" + (f": {self.detail}" if self.detail else "")


def compare(plan: Plan, broker: Broker) -> list[Difference]:
    """Each difference between the plan and what the management API found."""
    return [
        *_exchanges(plan, {found["name"]: found for found in broker.exchanges}),
        *_queues(plan, {found["name"]: found for found in broker.queues}),
        *_bindings(plan, {_found_way(found) for found in broker.bindings}),
    ]


async def probe(plan: Plan, admin: Admin) -> list[Difference]:
    """Each difference that AMQP alone can show.

    Of an object that differs the first value; no bindings, and nothing that is superfluous.
    """
    objects: tuple[Exchange | Queue, ...] = (*plan.exchanges, *plan.queues)
    return [found for each in objects if (found := await _probe(each, admin))]


def compare_users(users: Iterable[User], access: Access) -> Iterator[Difference]:
    """Each user that is missing, or that may do more or less than planned."""
    for user in users:
        found, granted = access.tags.get(user.name), access.permissions.get(user.name)
        if found is None:
            yield Difference("missing", "user", user.name, user.note)
            continue
        planned = {"configure": user.configure, "write": user.write, "read": user.read}
        actual = {key: (granted or {}).get(key, "") for key in planned}
        for key, has, wants in (
            ("tags", found, user.tag),
            *((key, actual[key], wants) for key, wants in planned.items()),
        ):
            if has != wants:
                detail = f"{key} is {_shown(has)}, planned {_shown(wants)}"
                yield Difference("different", "user", user.name, detail)


def strangers(plan: Plan, users: Iterable[User], access: Access) -> Iterator[Difference]:
    """Each other user who may do something with what is planned.

    Administrators are left out: they may give themselves any right.
    """
    known = {user.name for user in users}
    objects = [*(each.name for each in plan.exchanges), *(each.name for each in plan.queues)]
    for name, granted in sorted(access.permissions.items()):
        if name in known or "administrator" in access.tags.get(name, ""):
            continue
        may = [key for key in _PERMISSIONS if _fits(granted.get(key, ""), objects)]
        if may:
            yield Difference("superfluous", "user", name, f"it may {', '.join(may)}")


def unseen_bindings(why: str) -> Difference:
    """The line that says that nobody has looked at the bindings."""
    return Difference("not verified", "binding", "of all exchanges", why)


_PERMISSIONS = ("configure", "write", "read")


def _fits(pattern: str, objects: Iterable[str]) -> bool:
    """Whether the broker would find a pattern in one of these names; an empty one in none."""
    try:
        return bool(pattern) and any(re.search(pattern, name) for name in objects)
    except re.error:  # the broker's patterns know more than ours
        return True


async def _probe(each: Exchange | Queue, admin: Admin) -> Difference | None:
    what: Literal["queue", "exchange"] = "queue" if isinstance(each, Queue) else "exchange"
    # Looking first: declaring would create what is missing.
    if not await admin.exists(what, each.name):
        return Difference("missing", what, each.name)
    try:
        if isinstance(each, Queue):
            await admin.declare_queue(each.name, each.arguments)
        else:
            await admin.declare_exchange(each.name, each.kind, each.arguments)
    except Inequivalent as error:
        detail = f"{error.argument} is {error.found}, planned {error.planned}"
        return Difference("different", what, each.name, detail)
    except Refused as error:
        return Difference("not verified", what, each.name, f"it is there, but {error}")
    return None


def _exchanges(plan: Plan, found: dict[str, Found]) -> Iterator[Difference]:
    for each in plan.exchanges:
        planned = {**_LASTING, "internal": False, "type": each.kind, **each.arguments}
        yield from _differences("exchange", each.name, planned, found.get(each.name))
    yield from _superfluous(plan, "exchange", found.keys() - {each.name for each in plan.exchanges})


def _queues(plan: Plan, found: dict[str, Found]) -> Iterator[Difference]:
    for each in plan.queues:
        planned = {**_LASTING, "exclusive": False, **each.arguments}
        yield from _differences("queue", each.name, planned, found.get(each.name))
    yield from _superfluous(plan, "queue", found.keys() - {each.name for each in plan.queues})


_LASTING = {"durable": True, "auto_delete": False}


def _differences(
    what: Literal["exchange", "queue"], name: str, planned: dict[str, Any], found: Found | None
) -> Iterator[Difference]:
    if found is None:
        yield Difference("missing", what, name)
        return
    actual = {key: found[key] for key in _PROPERTIES & planned.keys() if key in found}
    actual |= found["arguments"]
    for key in sorted(planned.keys() | actual.keys()):
        has, wants = actual.get(key), planned.get(key)
        if has != wants:
            detail = f"{key} is {_shown(has)}, planned {_shown(wants)}"
            yield Difference("different", what, name, detail)


_PROPERTIES = {"durable", "auto_delete", "exclusive", "internal", "type"}


def _shown(value: object) -> str:
    return "none" if value is None else json.dumps(value)


def _superfluous(
    plan: Plan, what: Literal["exchange", "queue"], others: set[str]
) -> Iterator[Difference]:
    """What is not planned but has a name that only these services give: buckets, lanes.

    `pf.trading.agent` is no queue of `trading`: it may be the work queue of `trading.agent`.
    """
    tail = r"[a-z0-9_]+\.\d+" if what == "queue" else r"[a-z0-9_]+s"
    objects: tuple[Exchange | Queue, ...] = (*plan.queues, *plan.exchanges)
    aside = {names.moving(each.name) for each in objects}
    for name in sorted(others & aside):
        yield Difference("superfluous", what, name, "a migration was interrupted")
    for service in plan.services:
        ours = re.compile(rf"pf\.{re.escape(service.name)}\.{tail}")
        for name in sorted(others):
            if ours.fullmatch(name):
                yield Difference("superfluous", what, name)


def _bindings(plan: Plan, found: set[Way]) -> Iterator[Difference]:
    planned = {_way(each) for each in plan.bindings}
    for way in sorted(planned - found):
        yield Difference("missing", "binding", _road(way))
    destinations = {("queue", each.name) for each in plan.queues}
    destinations |= {("exchange", each.name) for each in plan.exchanges}
    for way in sorted(found - planned):
        source, to, destination, *_ = way
        # Every queue hangs on the default exchange, whose name is empty, by its own name.
        if source and ((to, destination) in destinations or source in _own_exchanges(plan)):
            yield Difference("superfluous", "binding", _road(way))


def _own_exchanges(plan: Plan) -> set[str]:
    """The exchanges that one service has to itself; on the others more may be bound than this."""
    return {each.name for each in plan.exchanges if each.kind == "headers"}


def _way(each: Binding) -> Way:
    return each.source, each.to, each.destination, each.key, _sorted(each.arguments)


def _found_way(found: Found) -> Way:
    return (
        found["source"],
        found["destination_type"],
        found["destination"],
        found["routing_key"],
        _sorted(found["arguments"]),
    )


def _sorted(arguments: Found) -> str:
    return json.dumps(dict(arguments), sort_keys=True) if arguments else ""


def _road(way: Way) -> str:
    source, to, destination, key, arguments = way
    on = " ".join(part for part in (f"on {key}" if key else "", arguments) if part)
    return f"{source} -> {to} {destination} {on}".rstrip()
