"""Where on the broker a demo plays: in a virtual host that nothing else lives in."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from fleet import clock
from fleet.amqp.admin import Admin
from fleet.amqp.removal import remove
from fleet.broker import Management, RunningBroker
from fleet.core.errors import BrokerError
from fleet.store import Store
from topology.apply import apply, record
from topology.model import Plan

STALE_S: Final = 900.0
"""A demo's virtual host that is older, and that nobody is connected to, was left by kill -9."""
_named = re.compile(r"fleet-demo-([0-9a-f]{8})[0-9a-f]{8}").fullmatch


@contextmanager
def place(
    broker: RunningBroker, layout: Plan, say: Callable[[str], None] = lambda _: None
) -> Iterator[str]:
    """The AMQP URL of a virtual host without any of the layout, and without it again at the end.

    At somebody else's broker it is one of our own, where the management API can make one. Raises
    BrokerError where the one given is in use.
    """
    if broker.kind != "given":
        yield broker.amqp_url
    elif broker.management_url is None:
        with _borrowed(broker.amqp_url, layout):
            yield broker.amqp_url
    else:
        for left in remove_stale(broker.management(), time.time()):
            say(f"The virtual host {left} of a demo that was killed is removed.")
        with _own(broker) as (name, amqp_url):
            say(f"Playing in the virtual host {name}, which goes at the end.")
            yield amqp_url


@contextmanager
def _own(broker: RunningBroker) -> Iterator[tuple[str, str]]:
    name, management = name_at(time.time()), broker.management()
    management.create_vhost(name)
    try:
        yield name, urlunsplit(urlsplit(broker.amqp_url)._replace(path=f"/{name}"))
    finally:
        management.delete_vhost(name)


def name_at(now_s: float) -> str:
    """A name for a demo's virtual host that tells when it was made."""
    return f"fleet-demo-{int(now_s) & 0xFFFFFFFF:08x}{secrets.token_hex(4)}"


def remove_stale(management: Management, now_s: float) -> list[str]:
    """Remove the virtual hosts of demos that are over without having removed them; their names.

    What cannot be looked at or removed stays: that is no reason against another demo.
    """
    removed: list[str] = []
    with suppress(BrokerError):
        for name in management.vhosts():
            made = _named(name)
            if made is None or now_s - int(made[1], 16) < STALE_S or management.connections(name):
                continue
            management.delete_vhost(name)
            removed.append(name)
    return removed


@contextmanager
def _borrowed(amqp_url: str, layout: Plan) -> Iterator[None]:
    exchanges = [exchange.name for exchange in layout.exchanges]
    queues = [queue.name for queue in layout.queues]
    found = asyncio.run(_found(amqp_url, exchanges, queues))
    if found:
        raise BrokerError(
            f"The virtual host of AMQP_URL is in use ({found} is there), and without the"
            " management API the demo cannot make one of its own: set MANAGEMENT_URL, name an"
            " empty virtual host, or leave AMQP_URL out."
        )
    try:
        yield
    finally:
        asyncio.run(remove(amqp_url, exchanges, queues))


async def _found(amqp_url: str, exchanges: Sequence[str], queues: Sequence[str]) -> str | None:
    async with await Admin.open(amqp_url) as admin:
        for name in exchanges:
            if await admin.exists("exchange", name):
                return name
        for name in queues:
            if await admin.exists("queue", name):
                return name
    return None


async def lay_out(plan: Plan, amqp_url: str, store: Store) -> None:
    """Declare the layout, and write down what feeds whom, and in how many lanes."""
    async with await Admin.open(amqp_url) as admin:
        await apply(plan, admin)
    await store.run(partial(record, plan=plan, now_ms=clock.now_ms()))
