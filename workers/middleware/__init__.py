"""What folds around every handler, one file each.

A middleware takes the next call and returns a call. The stack of a worker is one list, the first
one outermost; without any, the handler's function is called directly.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from workers.context import Context
from workers.registry import Handler, Result

Call: TypeAlias = Callable[[Handler, Context, Any], Result | Awaitable[Result]]
Middleware: TypeAlias = Callable[[Call], Call]


def compose(middlewares: Sequence[Middleware]) -> Call:
    """The handler with `middlewares` around it, the first one outermost."""
    call: Call = _handle
    for middleware in reversed(middlewares):
        call = middleware(call)
    return call


def _handle(handler: Handler, context: Context, payload: Any) -> Result | Awaitable[Result]:
    return handler.function(context, payload)
