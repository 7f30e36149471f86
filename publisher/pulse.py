"""A bridge's pulse: says every two seconds how it does, for whoever looks at the fleet."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from fleet.core.errors import StateError
from fleet.store import replicas
from fleet.store.presence import Presence
from fleet.store.replicas import BEAT_S
from publisher.vitals import Vitals

SPAN_S: Final = 30.0

log = structlog.get_logger("publisher")


@asynccontextmanager
async def beating(presence: Presence, vitals: Vitals) -> AsyncIterator[None]:
    """Say how the bridge does, while inside. A store that is away ends nothing."""
    task = asyncio.create_task(_beat(presence, Report(vitals)))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await presence.leave()


class Report:
    """What a bridge says of itself; its rate is over half a minute."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        looks = round(SPAN_S / BEAT_S) + 1
        self._looks = deque([(time.monotonic(), vitals.passed)], maxlen=looks)

    def pulse(self) -> replicas.Pulse:
        """What it says now."""
        vitals, (then, passed_then) = self._vitals, self._looks[0]
        now, passed = time.monotonic(), vitals.passed
        self._looks.append((now, passed))
        reasons = vitals.health.reasons()
        return replicas.Pulse(
            state=self._state(),
            handled=passed,
            in_hand=vitals.unsettled,
            window_s=round(now - then, 1),
            rate=round((passed - passed_then) / max(now - then, 0.001), 2),
            lag_s=round(vitals.lag_s, 3),
            note="; ".join(f"{part}: {why}" for part, why in reasons.items())[:200],
        )

    def _state(self) -> replicas.State:
        if self._vitals.health.draining:
            return "draining"
        return "leading" if self._vitals.is_leading else "standby"


async def _beat(presence: Presence, report: Report) -> None:
    taken = False
    while True:
        try:
            await (presence.say if taken else presence.take)(report.pulse())
            taken = True
        except StateError as error:
            log.debug("nobody hears how the bridge does", reason=str(error))
        await asyncio.sleep(BEAT_S)
