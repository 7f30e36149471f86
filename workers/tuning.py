"""How many deliveries a worker has in hand, by how long its handlers take: `PREFETCH=auto`."""

from __future__ import annotations

import asyncio
import math
from typing import Final, NamedTuple

import structlog

from workers.consumers import Consumers
from workers.registry import Service
from workers.settings import AUTO_AHEAD_S, AUTO_MOST, least_prefetch
from workers.tally import Tally

LOOK_S: Final = 2.0
ENOUGH: Final = 20
"""Events from which on their mean says something."""
STEP: Final = 1.5
"""Who wants less of a change than this leaves it: a new consumer costs a round trip."""

log = structlog.get_logger("fleet.workers")


def aim(cost_s: float, concurrency: int) -> int:
    """How many to have in hand where one after the other comes off every `cost_s` seconds.

    Those that run and a quarter of a second's work beside, which covers the broker's answer and
    the store's commit; from twice the concurrency to 400, or to that twice where it is more.
    """
    least = least_prefetch(concurrency)
    most = max(AUTO_MOST, least)
    if cost_s * most <= AUTO_AHEAD_S:
        return most
    return min(most, max(least, concurrency + math.ceil(AUTO_AHEAD_S / cost_s)))


def is_worth_it(now: int, wanted: int) -> bool:
    """Whether one is more than half as much again as the other."""
    return wanted > now * STEP or now > wanted * STEP


class Tuning:
    """Looks every two seconds how long the handlers of the work queue took since."""

    def __init__(
        self, service: Service, tally: Tally, consumers: Consumers, concurrency: int
    ) -> None:
        lane = service.lanes.type if service.lanes else ""
        self._took = {
            each.name: (tally.took[each.name], concurrency if each.is_async else 1)
            for pattern, each in service.handlers.items()
            if pattern != lane
        }
        self._consumers = consumers
        self._concurrency = concurrency
        self._seen = self._sums()

    async def run(self) -> None:
        """Look, and change what is worth a change, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Do it once."""
        sums = self._sums()
        count = sums.events - self._seen.events
        if count < ENOUGH:
            return
        spent_s, cost_s = sums.spent_s - self._seen.spent_s, sums.cost_s - self._seen.cost_s
        self._seen = sums
        now, wanted = self._consumers.prefetch, aim(cost_s / count, self._concurrency)
        if not is_worth_it(now, wanted):
            return
        log.info(
            "prefetch tuned",
            prefetch=wanted,
            before=now,
            reason=f"{count} events took {spent_s / count * 1000:.3g} ms each,"
            f" {self._concurrency} at a time",
        )
        await self._consumers.resize(wanted)

    def _sums(self) -> _Sums:
        """All events so far; who awaits nothing has the loop to itself, so it costs all it took."""
        took = self._took.values()
        return _Sums(
            sum(buckets.count for buckets, _ in took),
            sum(buckets.total for buckets, _ in took),
            sum(buckets.total / at_once for buckets, at_once in took),
        )


class _Sums(NamedTuple):
    events: int
    spent_s: float
    cost_s: float
