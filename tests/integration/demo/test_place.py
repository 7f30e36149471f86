"""Where a demo plays, and what is left there by one that was killed."""

from __future__ import annotations

import time
from urllib.parse import urlsplit, urlunsplit

import aio_pika

from fleet.broker import Management, RunningBroker
from fleet.demo.place import STALE_S, name_at, remove_stale

PATIENCE_S = 60.0


async def test_what_a_killed_demo_left_goes_at_the_next_start(fresh_broker: RunningBroker):
    """Old ones that nobody is connected to; not young ones, not used ones, nobody else's."""
    management, now = fresh_broker.management(), time.time()
    left, used = name_at(now - STALE_S - 60), name_at(now - STALE_S - 60)
    young, foreign = name_at(now - STALE_S / 2), "fleet-demo-of-mine"
    for name in (left, used, young, foreign):
        management.create_vhost(name)
    url = urlunsplit(urlsplit(fresh_broker.amqp_url)._replace(path=f"/{used}"))
    async with await aio_pika.connect(url):
        wait_for_connection(management, used)
        assert remove_stale(management, now) == [left]
    assert set(management.vhosts()) == {"/", used, young, foreign}


def wait_for_connection(management: Management, vhost: str) -> None:
    """Wait until the management API knows that somebody is connected."""
    deadline = time.monotonic() + PATIENCE_S
    while not management.connections(vhost):
        assert time.monotonic() < deadline
        time.sleep(0.2)
