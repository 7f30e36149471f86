"""How much waits for a person, and for how long: what gauges and alarms are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import structlog

from fleet.amqp.looks import Depth, open_looks
from fleet.core.errors import TopologyError
from fleet.store import archive
from fleet.store.api import Store
from topology import names

WARN_ABOVE: Final = 10

log = structlog.get_logger("fleet.replay")


class Backlog(msgspec.Struct, frozen=True):
    """What waits in a service's failed queue.

    `oldest_ms` is when the oldest of what the journal has as failed, and nobody resolved, did so;
    0: no row says so.
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
    Raises BrokerError, StateError, and TopologyError where there is no such queue.
    """
    async with open_looks(url) as looks:
        depths = await looks.depths([names.failed(service) for service in services])
    oldest = await store.read(lambda tx: [archive.oldest_failed(tx, each) for each in services])
    found = [
        Backlog(service, _depth(depths, names.failed(service)), at_ms)
        for service, at_ms in zip(services, oldest, strict=True)
    ]
    for each in found:
        if each.is_above(warn_above):
            log.warning("failed messages wait for a person", service=each.service, count=each.depth)
    return found


def _depth(depths: Mapping[str, Depth], queue: str) -> int:
    if queue not in depths:
        raise TopologyError(f"There is no queue {queue}; run `fleet topology apply` first.")
    return depths[queue].ready
