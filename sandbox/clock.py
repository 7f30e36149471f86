"""The one clock of the stand-in."""

from __future__ import annotations

import time


def now_ms() -> int:
    """The wall clock in milliseconds since 1970."""
    return time.time_ns() // 1_000_000
