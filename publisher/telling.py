"""A log line that may be due often: told the first time, then at a bounded rate with its count."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import structlog

EVERY_S: Final = 10.0

log = structlog.get_logger("publisher")


class Telling:
    """Warns of `event` at once, and after that at most every `EVERY_S` seconds.

    Each line has the words of the last occurrence, and as `count` how many there were since the
    line before.
    """

    def __init__(self, event: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._event = event
        self._clock = clock
        self._words: dict[str, Any] = {}
        self._count = 0
        self._next = float("-inf")

    def note(self, **words: Any) -> None:
        """Count one, and tell of it where that is due."""
        self._count += 1
        self._words = words
        self.due()

    def due(self, *, now: bool = False) -> None:
        """Tell what was only counted, if there is any and the time has come, or `now`."""
        if self._count and (now or self._clock() >= self._next):
            log.warning(self._event, count=self._count, **self._words)
            self._count = 0
            self._next = self._clock() + EVERY_S
