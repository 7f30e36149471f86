"""How a worker lets go of its deliveries: what runs is finished, what only waits goes back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog

from fleet import clock
from fleet.amqp.delivery import Delivery
from fleet.core.decision import Postpone
from fleet.store import effects
from fleet.store.api import Store
from workers.consumers import Consumers
from workers.effects import outcome_of
from workers.intake import Intake
from workers.job import Job
from workers.patience import until_stored
from workers.pool import Pool
from workers.process import effecting
from workers.settle import Settler

LET_GO_S: Final = 3.0
"""How long the store may take to note that effects were let go of, once the grace is over."""

log = structlog.get_logger("fleet.workers")


class Drain:
    """Drains a worker once, within `grace_s`; the channels are its caller's to close."""

    def __init__(
        self,
        *,
        store: Store,
        consumers: Consumers,
        intake: Intake,
        pool: Pool,
        settler: Settler,
        grace_s: float,
    ) -> None:
        self._store = store
        self._consumers = consumers
        self._intake = intake
        self._pool = pool
        self._settler = settler
        self._grace_s = grace_s
        self._handed_back = 0

    async def run(self) -> int:
        """Take nothing more, and return once nothing runs; how many were handed back.

        What still runs when the grace is over comes again once its channel is closed.
        """
        await self._consumers.cancel()
        try:
            async with asyncio.timeout(self._grace_s):
                await self._intake.stop()
                await self._hand_back(self._grace_s)
                await self._pool.idle()
                await self._settler.drained()
        except TimeoutError:
            log.warning("the grace is over; what still runs comes again")
            await self._hand_back(LET_GO_S)
        return self._handed_back

    async def _hand_back(self, patience_s: float) -> None:
        jobs = self._pool.waiting()
        waiting = [*self._intake.waiting(), *(job.delivery for job in jobs)]
        self._handed_back += len(waiting)
        try:
            await self._let_go(jobs, patience_s)
        finally:  # also where the grace ends amid it
            # A lane's go back in order when its channel closes: now they would come behind newer.
            await _nack([delivery for delivery in waiting if not delivery.origin.is_lane])

    async def _let_go(self, jobs: Sequence[Job], patience_s: float) -> None:
        """Say that these did not touch their effects: whoever has them next need not wait or ask.

        Of an effect that an earlier attempt may have had that is not known any better.
        """
        held = [effect for job in jobs if (effect := effecting(job)) is not None]
        if not held:
            return
        results = [(outcome_of(each, Postpone(0)), clock.now_ms()) for each in held]
        with suppress(TimeoutError):  # then the hold runs out by itself
            async with asyncio.timeout(patience_s):
                await until_stored(lambda: self._store.run(lambda tx: effects.settle(tx, results)))


async def _nack(deliveries: Sequence[Delivery]) -> None:
    """Give these back to their queues, at once."""
    for delivery in deliveries:
        delivery.give_back()
    for line in {delivery.line for delivery in deliveries}:
        await line.flush()
