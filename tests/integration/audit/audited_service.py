"""A service of these tests, as a user's module holds one."""

from __future__ import annotations

from topology.model import Lanes
from workers.context import Context
from workers.registry import Service

service = Service("audited", lanes=Lanes(partitions=2))


@service.handler("wallet.*")
def on_wallet(ctx: Context, payload: dict[str, object]) -> None:
    """Be content."""


@service.handler("market.tick")
def on_tick(ctx: Context, payload: dict[str, object]) -> None:
    """Be content."""
