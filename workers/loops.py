"""The worker's own tasks: one that ends by an error ends the worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


class Loops:
    """Starts tasks and watches them: half a worker must not look alive."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken = asyncio.Event()
        self._error: BaseException | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` beside the others."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def watch(self, task: asyncio.Task[None]) -> None:
        """Let the error of a task that somebody else ends be one of ours."""
        task.add_done_callback(self._ended)

    async def broken(self) -> None:
        """Wait until one of them ends by an error; raises that."""
        await self._broken.wait()
        if self._error is not None:
            raise self._error

    async def stop(self) -> None:
        """Cancel all that run, and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._error = self._error or task.exception()
            self._broken.set()


@asynccontextmanager
async def unless(stop: asyncio.Event) -> AsyncIterator[None]:
    """Give the block up as soon as `stop` is set; whoever comes out of it looks at `stop`."""

    async def watch() -> None:
        await stop.wait()
        limit.reschedule(0)

    try:
        async with asyncio.timeout(None) as limit:
            watching = asyncio.create_task(watch())
            try:
                yield
            finally:
                watching.cancel()
    except TimeoutError:
        if not limit.expired():
            raise
