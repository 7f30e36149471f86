"""Where on the broker a demo plays: in a virtual host that nothing else lives in."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from urllib.parse import quote, urlsplit, urlunsplit

from fleet.amqp.admin import Admin
from fleet.broker import RunningBroker
from fleet.core.errors import BrokerError
from fleet.store import Store, bindings
from topology.apply import apply
from topology.model import Plan


@contextmanager
def place(broker: RunningBroker) -> Iterator[str]:
    """The AMQP URL of an empty virtual host; gone at the end with all that was in it.

    Raises BrokerError where `broker` is somebody else's and offers no way to make one.
    """
    if broker.kind != "given":
        yield broker.amqp_url
        return
    if broker.management_url is None:
        raise BrokerError(
            "The demo plays in a virtual host of its own, which only the management API can make:"
            " set MANAGEMENT_URL to it, or leave AMQP_URL out for a private broker."
        )
    name, management = f"fleet-demo-{secrets.token_hex(4)}", broker.management()
    management.create_vhost(name)
    try:
        yield urlunsplit(urlsplit(broker.amqp_url)._replace(path=f"/{quote(name, safe='')}"))
    finally:
        management.delete_vhost(name)


async def lay_out(plan: Plan, amqp_url: str, store: Store) -> None:
    """Declare the layout, and write down what feeds whom."""
    async with await Admin.open(amqp_url) as admin:
        applied = await apply(plan, admin)
    now_ms = time.time_ns() // 1_000_000
    for service, patterns in applied.patterns.items():
        await store.run(partial(bindings.record, service=service, patterns=patterns, now_ms=now_ms))
