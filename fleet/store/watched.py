"""A store that knows how it fares: what waits, what failed, and how long commits take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

from fleet.core.errors import StateError
from fleet.store.api import Candidate, Settled, Standing, Store, Tx, Verdict
from fleet.telemetry import metrics

T = TypeVar("T")

SLOW_S: Final = 5.0
"""A call that waits longer says that the store does not keep up."""


class Watched:
    """`store`, with its calls watched; see `Store` for what it promises."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[object, float] = {}
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """Why the store cannot be relied upon now; "" where it can."""
        if self._trouble:
            return self._trouble
        waits = time.monotonic() - min(self._waiting.values(), default=time.monotonic())
        return f"a call has waited for {waits:.0f} s" if waits > SLOW_S else ""

    async def open(self) -> None:
        """Open it."""
        await self._store.open()

    async def close(self) -> None:
        """Close it."""
        await self._store.close()

    async def run(self, work: Callable[[Tx], T]) -> T:
        """Do `work` in a transaction."""
        with self._watch(writes=True):
            return await self._store.run(work)

    async def read(self, query: Callable[[Tx], T]) -> T:
        """Do `query` outside of any."""
        with self._watch(writes=False):
            return await self._store.read(query)

    async def admit(self, candidates: Sequence[Candidate], now_ms: int) -> list[Standing]:
        """Learn the standing of each."""
        with self._watch(writes=False):
            return await self._store.admit(candidates, now_ms)

    async def commit(self, settled: Sequence[Settled]) -> list[Verdict]:
        """Write what was handled."""
        with self._watch(writes=True):
            return await self._store.commit(settled)

    @contextmanager
    def _watch(self, *, writes: bool) -> Iterator[None]:
        call, began = object(), time.monotonic()
        self._waiting[call] = began
        try:
            yield
        except StateError as error:
            self._trouble = str(error)
            metrics.STORE_ERRORS.inc()
            raise
        finally:
            del self._waiting[call]
        self._trouble = ""
        if writes:
            metrics.STORE_COMMIT_SECONDS.observe(time.monotonic() - began)
