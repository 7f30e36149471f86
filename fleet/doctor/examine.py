"""All checks, one after another; what cannot be asked says so, and the rest goes on."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from fleet.amqp.admin import Admin
from fleet.amqp.looks import Depth, open_looks
from fleet.amqp.reasons import parse
from fleet.amqp.rights import open_rights
from fleet.core.errors import FleetError
from fleet.core.signature import Keys
from fleet.doctor import broker, clocks, people, rights, storing
from fleet.doctor.finding import Finding, worst_or
from fleet.doctor.roads import open_roads
from fleet.settings import is_near
from fleet.status.gather import Gatherer
from fleet.status.state import State
from fleet.store import open_store
from fleet.store.api import Store
from fleet.store.factory import folder_of
from topology import names
from topology.check import Difference, compare, probe
from topology.management import Survey, look, management_url, survey
from topology.model import Plan

SHOWN: Final = 3
VENUE_S: Final = 5.0
_LOOK: Final = "Set MANAGEMENT_URL, to an API that this user may ask."


@dataclass(frozen=True, slots=True)
class Case:
    """What is to be looked at."""

    plan: Plan
    amqp_url: str
    management_url: str | None
    store_url: str
    longest_s: dict[str, float]
    """The longest deadline of a handler, by service."""
    prefetch: int
    concurrency: int
    venue_url: str = ""
    """Where the venue is; "": it is not asked for the time."""
    venue_tls: ssl.SSLContext | None = None
    """What its certificate is verified with."""
    keys: Keys | None = None
    """What canaries are signed with."""
    canaries: bool = True
    """Whether the roads are tried."""


async def examine(case: Case) -> list[Finding]:
    """Every finding, in the order in which a person would look; raises nothing for what is away."""
    found: list[Finding] = []
    async with Gatherer(case.store_url, case.amqp_url) as gatherer, _stored(case, found) as store:
        state = await gatherer.look()
        seen = None if state.broker else await _survey(case, found)
        for check in (_broker(case, state, seen), _store(case, store), _venue(case)):
            found += [each async for each in check]
        found += people.at_work(state, case.plan.services, await _depths(case, state))
        if not state.broker and case.canaries:
            found += [each async for each in _roads(case, store, state)]
    return found


async def _depths(case: Case, state: State) -> dict[str, Depth]:
    if state.broker:
        return {}
    services = case.plan.services
    wanted = [names.work_queue(each.name) for each in services]
    async with open_looks(case.amqp_url) as looks:
        return await looks.depths(
            [*wanted, *(queue for each in services for queue in each.lane_queues)]
        )


async def _survey(case: Case, found: list[Finding]) -> Survey | None:
    try:
        url = management_url(case.amqp_url, case.management_url)
        if url is not None:
            return await survey(url, _vhost(case))
        why = "The AMQP port is not the usual one, so where the management API is, nobody said."
    except FleetError as error:
        why = str(error)
    text = f"{why} Nodes, policies, bindings and the broker's clock were not looked at."
    found.append(Finding("management", "warn", text, _LOOK))
    return None


async def _broker(case: Case, state: State, seen: Survey | None) -> AsyncIterator[Finding]:
    if state.broker:
        yield Finding("broker", "fail", state.broker)
        return
    async with open_looks(case.amqp_url) as looks:
        product, number = looks.broker
        yield broker.version(product, number)
    if finding := broker.encryption(parse(case.amqp_url)):
        yield finding
    async for each in _guarded("layout", _layout(case, watched=seen is not None)):
        yield each
    if product == "RabbitMQ":
        async for each in _guarded("rights", _rights(case)):
            yield each
    timeouts: dict[str, float] = {}
    if seen is not None:
        address = parse(case.amqp_url)
        yield broker.user(seen.user, seen.tags, address.host or "")
        for finding in (*_nodes(seen), *broker.policies(seen.queues), *_skew(seen)):
            yield finding
        timeouts = broker.consumer_timeouts(seen.queues)
    for service, longest in case.longest_s.items():
        limit = timeouts.get(names.work_queue(service), broker.CONSUMER_TIMEOUT_S)
        yield broker.deadline(service, longest, case.prefetch, case.concurrency, limit)


async def _rights(case: Case) -> AsyncIterator[Finding]:
    name = parse(case.amqp_url).user or "guest"
    user = rights.part(case.plan, name)
    if user is None:  # an administrator, of whom the management API tells
        return
    async with open_rights(case.amqp_url) as asked:
        found = [each async for each in rights.tried(case.plan, user, asked)]
    for finding in rights.judge(name, user, found):
        yield finding


def _nodes(seen: Survey) -> list[Finding]:
    if seen.nodes is not None:
        return broker.nodes(seen.nodes)
    text = "Alarms and disk of the nodes are shown to a user with the tag `monitoring` only."
    return [Finding("nodes", "warn", text, "Name such a user in MANAGEMENT_URL.")]


def _skew(seen: Survey) -> list[Finding]:
    theirs = clocks.date_s(seen.date)
    return [] if theirs is None else [clocks.skew("the broker", theirs - time.time())]


async def _layout(case: Case, *, watched: bool) -> AsyncIterator[Finding]:
    found = await _differences(case, watched=watched)
    unseen = [each for each in found if each.kind == "not verified"]
    wrong = [each for each in found if each.kind != "not verified"]
    fix = "`fleet topology check` lists all; `apply` declares what is missing, `migrate` the rest."
    well = f"The broker has all {len(case.plan.queues)} queues as planned."
    text = f"The broker is not as planned: {_listed(wrong)}."
    for each in worst_or([Finding("layout", "fail", text, fix)] if wrong else [], "layout", well):
        yield each
    if unseen:
        text = f"{len(unseen)} queues and exchanges are there, but were not compared."
        yield Finding("layout", "warn", text, "Ask as a user who may: `topology`.")


async def _differences(case: Case, *, watched: bool) -> list[Difference]:
    url = management_url(case.amqp_url, case.management_url)
    if watched and url is not None:
        return compare(case.plan, await look(url, _vhost(case)))
    async with await Admin.open(case.amqp_url) as admin:
        return await probe(case.plan, admin)


async def _store(case: Case, store: Store | None) -> AsyncIterator[Finding]:
    if store is None:
        return
    async for each in _guarded("store", _written(case, store)):
        yield each


async def _written(case: Case, store: Store) -> AsyncIterator[Finding]:
    yield await storing.commits(store)
    folder = folder_of(case.store_url)
    if folder is not None:
        for each in storing.disk(folder):
            yield each
        return
    begun = time.time()
    settings, now_s = await store.read(storing.ask_server)
    if not is_near(urlsplit(case.store_url).hostname or "") and await store.read(storing.is_open):
        text = "What goes to PostgreSQL is not encrypted."
        yield Finding("tls", "warn", text, "Add sslmode=verify-full to STORE_URL.")
    for each in storing.server(settings, now_s, (begun + time.time()) / 2):
        yield each


async def _venue(case: Case) -> AsyncIterator[Finding]:
    if not case.venue_url:
        return
    try:
        timeout = aiohttp.ClientTimeout(total=VENUE_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.head(
                case.venue_url, allow_redirects=False, ssl=case.venue_tls or True
            ) as answer,
        ):
            theirs = clocks.date_s(answer.headers.get("Date", ""))
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        yield Finding("venue", "warn", "The venue does not answer.", "Correct PF_API_URL, or wait.")
        return
    if theirs is not None:
        yield clocks.skew("the venue", theirs - time.time())


async def _roads(case: Case, store: Store | None, state: State) -> AsyncIterator[Finding]:
    try:
        async with open_roads(case.amqp_url, store, case.keys) as roads:
            for service in case.plan.services:
                withheld = people.is_withheld(state, service.name)
                yield await roads.to_failed(service.name)
                yield await roads.home(service.name, withheld=withheld)
    except FleetError as error:
        yield Finding("roads", "warn", f"Roads were not tried: {error}", "Ask as `operator`.")


async def _guarded(check: str, findings: AsyncIterator[Finding]) -> AsyncIterator[Finding]:
    """The findings up to an error of the fleet's, which is one itself."""
    try:
        async for each in findings:
            yield each
    except FleetError as error:
        yield Finding(check, "fail", str(error))


@asynccontextmanager
async def _stored(case: Case, found: list[Finding]) -> AsyncIterator[Store | None]:
    """The open store; None where it cannot be opened, which is a finding."""
    async with AsyncExitStack() as stack:
        store: Store | None = None
        try:
            store = open_store(case.store_url, create=False)
            await store.open()
            stack.push_async_callback(store.close)
        except FleetError as error:
            found.append(Finding("store", "fail", str(error)))
            store = None
        yield store


def _vhost(case: Case) -> str:
    return parse(case.amqp_url).path[1:] or "/"


def _listed(differences: Sequence[Difference]) -> str:
    more = f"; and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
    return "; ".join(map(str, differences[:SHOWN])) + more
