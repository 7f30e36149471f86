"""A small layout, applied in each test's own virtual host."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from fleet.amqp.admin import Admin
from topology.apply import apply
from topology.model import Lanes, Plan, ServiceLayout
from topology.plan import plan

AGENT = ServiceLayout("agent", ("wallet.*", "order.*"), lanes=Lanes(partitions=3), buckets=2)
RISK = ServiceLayout("risk", ("market.tick", "wallet.*"), overflow="drop", buckets=1)


@pytest.fixture
def layout() -> Plan:
    """Two services: one with lanes, one that drops."""
    return plan([AGENT, RISK])


@pytest.fixture
async def admin(amqp_url: str) -> AsyncIterator[Admin]:
    """Declares in this test's virtual host."""
    async with await Admin.open(amqp_url) as opened:
        yield opened


@pytest.fixture
async def channel(amqp_url: str, layout: Plan, admin: Admin) -> AsyncIterator[AbstractChannel]:
    """A confirming channel to a broker that has the layout."""
    await apply(layout, admin)
    async with await aio_pika.connect(amqp_url) as connection:
        yield await connection.channel(on_return_raises=True)
