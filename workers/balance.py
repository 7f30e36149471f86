"""Each lane comes to the worker that ranks it first: who has another's lane lets go of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Final

import structlog

from fleet.core.errors import StateError
from fleet.store import replicas
from fleet.store.api import Store
from fleet.store.replicas import BEAT_S
from workers.lanes import LaneKeeper
from workers.placement import best

LOOK_S: Final = BEAT_S * 1.5
"""Whoever is at work has said so again between two looks."""
STEP_S: Final = 0.5

log = structlog.get_logger("fleet.workers")


class Balance:
    """Lets go of lanes that another worker ranks higher, as long as that one is seen at work.

    The broker gives a lane to whoever has waited longest, which need not be the one we meant;
    then that one lets go too. `let_go` gives back what is in hand of a lane, in order, and goes
    to the end of those who wait for it.

    The broker could do it by consumer priorities, but RabbitMQ 4.3.6 keeps the consumer of a
    worker that dies while its lane is being handed over, and later hands the lane to that one.
    """

    def __init__(
        self,
        store: Store,
        *,
        service: str,
        worker: str,
        lanes: LaneKeeper,
        let_go: Callable[[str], None],
    ) -> None:
        self._store = store
        self._service = service
        self._worker = worker
        self._lanes = lanes
        self._let_go = let_go
        self._words: dict[str, tuple[str, int]] = {}
        self._let_go_at: dict[str, float] = {}

    async def run(self) -> None:
        """Look and let go, until cancelled; while the store is away every lane stays."""
        at_work: set[str] = set()
        looked_at = -LOOK_S
        while True:
            if self._lanes.held() and time.monotonic() - looked_at >= LOOK_S:
                looked_at = time.monotonic()
                at_work = await self._at_work()
            self._balance(at_work)
            await asyncio.sleep(STEP_S)

    async def _at_work(self) -> set[str]:
        """Who has said something since the last look; whoever died has not."""
        try:
            words = await self._store.read(lambda tx: replicas.running(tx, self._service))
        except StateError:
            words = {}
        before, self._words = self._words, words
        return {name for name, said in words.items() if before.get(name, said) != said}

    def _balance(self, at_work: Collection[str]) -> None:
        now = time.monotonic()
        for lane in self._lanes.held():
            wanted_by = best({*at_work, self._worker}, lane)
            if wanted_by != self._worker and now - self._let_go_at.get(lane, 0.0) > LOOK_S:
                self._let_go_at[lane] = now
                log.info("lane let go", queue=lane, to=wanted_by)
                self._let_go(lane)
