"""Where a migration takes place, and with what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from fleet.amqp.admin import Admin
from fleet.amqp.mover import Mover
from fleet.store.api import Store
from topology.management import Broker, count, look, weigh


class Telling(Protocol):
    """Told what happens to which queue: a word, and how many messages."""

    def __call__(self, queue: str, what: str, count: int = 0) -> None:
        """Say it."""
        ...


@dataclass(frozen=True, slots=True)
class Site:
    """Where a migration takes place."""

    admin: Admin
    mover: Mover
    store: Store
    management: str
    """The management API, with its user."""
    vhost: str
    holder: str
    """Who we are, among those that might do this at the same time."""
    now_ms: Callable[[], int]
    tell: Telling = field(repr=False)
    patience_s: float = 300.0

    async def look(self) -> Broker:
        """What is there now."""
        return await look(self.management, self.vhost)

    async def count(self) -> dict[str, tuple[int, object]]:
        """The messages of each queue now, held ones too."""
        return await count(self.management, self.vhost)

    async def weigh(self) -> dict[str, int]:
        """The bytes in each queue, as counted some seconds ago."""
        return await weigh(self.management, self.vhost)
