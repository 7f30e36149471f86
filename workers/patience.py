"""Waiting for the store: while it is away nothing is decided."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from fleet.core.backoff import backoff
from fleet.core.errors import StateError

T = TypeVar("T")

log = structlog.get_logger("fleet.workers")


async def until_stored(work: Callable[[], Awaitable[T]]) -> T:
    """What `work` returns, tried again for as long as the store is away.

    Deliveries meanwhile stay unacked, so consuming pauses by itself at the prefetch.
    """
    for delay in backoff(random.uniform, first=0.1, cap=5.0):
        try:
            return await work()
        except StateError as error:
            log.warning("the store is away; deliveries wait", reason=str(error))
            await asyncio.sleep(delay)
    raise AssertionError("backoff is endless")
