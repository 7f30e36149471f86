"""How much waits for a person, and for how long: what gauges and alarms are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import structlog

from fleet.amqp.looks import open_looks
from fleet.store import archive
from fleet.store.api import Store
from fleet.telemetry.metrics import FAILED_ALARM, FAILED_DEPTH, FAILED_OLDEST
from topology import names

WARN_ABOVE: Final = 10

log = structlog.get_logger("fleet.backlog")


class Backlog(msgspec.Struct, frozen=True):
    """What waits in a service's failed queue.

    `oldest_ms` is when the oldest of what the journal has as failed, and nobody resolved, did so;
    0: no row says so, as for what the broker parked by itself.
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


async def read_backlogs(url: str, store: Store, services: Sequence[str]) -> list[Backlog]:
    """The backlog of each service that has a failed queue; looks at no message.

    Up to RabbitMQ 4.2 a look counts as a delivery, so what is asked all day must not look.
    Raises BrokerError and StateError.
    """
    async with open_looks(url) as looks:
        depths = await looks.depths([names.failed(service) for service in services])
    there = [service for service in services if names.failed(service) in depths]
    oldest = await store.read(lambda tx: [archive.oldest_failed(tx, each) for each in there])
    return [
        Backlog(service, depths[names.failed(service)].ready, at_ms)
        for service, at_ms in zip(there, oldest, strict=True)
    ]


class Alarm:
    """Keeps the gauges of what waits; tells when it rises above `warn_above` and when it falls.

    For whoever reads the backlogs every so often: `alarm.tell(await read_backlogs(…), now_ms)`.
    """

    def __init__(self, warn_above: int = WARN_ABOVE) -> None:
        self._warn_above = warn_above
        self._above: set[str] = set()
        self._since_ms: dict[str, int] = {}

    def tell(self, found: Iterable[Backlog], now_ms: int) -> None:
        """Take note of what was read."""
        for each in found:
            age_s, is_above = self.age_s(each, now_ms), each.is_above(self._warn_above)
            FAILED_DEPTH.labels(each.service).set(each.depth)
            FAILED_OLDEST.labels(each.service).set(age_s)
            FAILED_ALARM.labels(each.service).set(is_above)
            if is_above and each.service not in self._above:
                self._above.add(each.service)
                log.warning(
                    "failed messages wait for a person",
                    service=each.service,
                    count=each.depth,
                    oldest_s=round(age_s),
                )
            elif not is_above and each.service in self._above:
                self._above.discard(each.service)
                log.info("few failed messages are left", service=each.service, count=each.depth)

    def age_s(self, backlog: Backlog, now_ms: int) -> float:
        """How long the oldest waits, in seconds; where no row says it, since it was seen to."""
        if not backlog.depth:
            self._since_ms.pop(backlog.service, None)
            return 0.0
        since_ms = self._since_ms.setdefault(backlog.service, now_ms)
        return backlog.age_s(now_ms) if backlog.oldest_ms else max(0, now_ms - since_ms) / 1000
