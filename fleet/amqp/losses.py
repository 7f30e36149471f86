"""What a lost connection does to those who wait on it, and how that is told from a stop."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiormq.exceptions import AMQPError

LOSSES: Final = (AMQPError, OSError, TimeoutError, RuntimeError, asyncio.CancelledError)
"""What a call on a lost connection or channel may raise.

aiormq cancels what waits on a connection it closes, so a CancelledError belongs here;
`reraise_own_cancellation` tells it from a cancellation of the caller's own.
"""


def reraise_own_cancellation(error: BaseException) -> None:
    """Raise `error` again where it is the cancellation of this very task, not aiormq's."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task until it has ended: now and then aiormq swallows a cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=1.0)
    await asyncio.gather(task, return_exceptions=True)
