"""Waiting for what is bound to happen."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, Final

DEADLINE_S: Final = 60.0
"""So long that a busy machine does not fail a test; what holds is seen within a beat."""
BEAT_S: Final = 0.02


async def until(condition: Callable[[], Any], deadline_s: float = DEADLINE_S) -> None:
    """Return once `condition` holds (it may be a coroutine function); fail after the deadline."""
    async with asyncio.timeout(deadline_s):
        while True:
            holds = condition()
            if await holds if inspect.isawaitable(holds) else holds:
                return
            await asyncio.sleep(BEAT_S)
