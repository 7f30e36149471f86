"""How much waits for a person, and for how long: what gauges and alarms are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from fleet.amqp.looks import open_looks
from fleet.store import archive
from fleet.store.api import Store
from topology import names

WARN_ABOVE: Final = 10

log = structlog.get_logger("fleet.replay")


class Backlog(msgspec.Struct, frozen=True):
    """What waits in a service's failed queue.

    `oldest_ms` is when the oldest of what the journal has as failed, and nobody resolved, did so;
    0: there is none.
    """

    service: str
    depth: int
    oldest_ms: int

    def is_above(self, limit: int = WARN_ABOVE) -> bool:
        """Whether more wait than a person should leave waiting."""
        return self.depth > limit

    def age_s(self, now_ms: int) -> float:
        """How long the oldest waits, in seconds; 0 where nothing does."""
        waits = self.depth and self.oldest_ms
        return max(0, now_ms - self.oldest_ms) / 1000 if waits else 0.0


async def backlogs(
    url: str, store: Store, services: Sequence[str], *, warn_above: int = WARN_ABOVE
) -> list[Backlog]:
    """The backlog of each service, with a warning for each that is above; looks at no message.

    Up to RabbitMQ 4.2 a look counts as a delivery, so what is asked all day must not look.
    Raises BrokerError, StateError.
    """
    async with open_looks(url) as looks:
        depths = await looks.depths([names.failed(service) for service in services])
    oldest = await store.read(lambda tx: [archive.oldest_failed(tx, each) for each in services])
    found = [
        Backlog(service, depths[queue].ready if queue in depths else 0, at_ms)
        for service, at_ms in zip(services, oldest, strict=True)
        for queue in (names.failed(service),)
    ]
    for each in found:
        if each.is_above(warn_above):
            log.warning("failed messages wait for a person", service=each.service, count=each.depth)
    return found
