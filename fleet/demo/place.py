"""Where on the broker a demo plays: in a virtual host that nothing else lives in."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from urllib.parse import urlsplit, urlunsplit

from fleet.amqp.admin import Admin
from fleet.amqp.removal import remove
from fleet.broker import RunningBroker
from fleet.core.errors import BrokerError
from fleet.store import Store, bindings
from topology.apply import apply
from topology.model import Plan


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
        with _own(broker) as (name, amqp_url):
            say(f"Playing in the virtual host {name}, which goes at the end.")
            yield amqp_url


@contextmanager
def _own(broker: RunningBroker) -> Iterator[tuple[str, str]]:
    name, management = f"fleet-demo-{secrets.token_hex(4)}", broker.management()
    management.create_vhost(name)
    try:
        yield name, urlunsplit(urlsplit(broker.amqp_url)._replace(path=f"/{name}"))
    finally:
        management.delete_vhost(name)


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
    """Declare the layout, and write down what feeds whom."""
    async with await Admin.open(amqp_url) as admin:
        applied = await apply(plan, admin)
    now_ms = time.time_ns() // 1_000_000
    for service, patterns in applied.patterns.items():
        await store.run(partial(bindings.record, service=service, patterns=patterns, now_ms=now_ms))
