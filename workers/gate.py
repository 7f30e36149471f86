"""Lets many handlers run together, or one alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """Handlers enter and leave; `alone` waits until nobody is inside and keeps others out.

    A delivery that may have killed a worker runs alone, so that it can only take itself along.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._open = asyncio.Event()
        self._open.set()
        self._alone = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether nobody runs alone or waits to."""
        return self._open.is_set()

    async def opened(self) -> None:
        """Wait until handlers may run together."""
        while not self._open.is_set():
            await self._open.wait()

    def enter(self) -> None:
        """Come in; only while the gate is open."""
        self._inside += 1
        self._empty.clear()

    def leave(self) -> None:
        """Go out again."""
        self._inside -= 1
        if self._inside == 0:
            self._empty.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Be the only one inside."""
        async with self._alone:
            self._open.clear()
            try:
                await self._empty.wait()
                yield
            finally:
                self._open.set()
