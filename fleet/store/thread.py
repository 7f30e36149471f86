"""A store over engines in threads of their own; every database's store is this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from fleet.store import batch
from fleet.store.api import Candidate, Settled, Standing, Tx, Verdict
from fleet.store.owner import Engine, Owner

T = TypeVar("T")


class ThreadStore:
    """See `Store` for what it promises.

    One thread owns all writing. A second one reads, over a connection of its own, so that no
    question waits for a disk: at 1,000 events/s that is most of the way from a stream to a
    handler (`python -m bench latency`).
    """

    def __init__(self, writing: Engine, reading: Engine) -> None:
        self._owner = Owner(writing)
        self._reader = Owner(reading)

    async def open(self) -> None:
        """Open or create it; raises StoreError where a person must act."""
        await self._owner.start()
        try:
            await self._reader.start()
        except BaseException:
            await self._owner.stop()
            raise

    async def close(self) -> None:
        """Finish what is queued and close; twice is once."""
        await self._reader.stop()
        await self._owner.stop()

    async def run(self, work: Callable[[Tx], T]) -> T:
        """Do `work` in a savepoint of a group transaction; durable when this returns."""
        return await self._owner.submit(work, writes=True)

    async def read(self, query: Callable[[Tx], T]) -> T:
        """Do `query` outside of any write transaction; it sees everything committed."""
        return await self._reader.submit(query, writes=False)

    async def admit(self, candidates: Sequence[Candidate], now_ms: int) -> list[Standing]:
        """The standing of each candidate, in order; claims of those not seen are reserved."""
        if not any(candidate.effect for candidate in candidates):
            return await self.read(lambda tx: batch.standings(tx, candidates))
        return await self._owner.submit(
            lambda tx: batch.admit(tx, candidates, now_ms), writes=True, alone=False
        )

    async def commit(self, settled: Sequence[Settled]) -> list[Verdict]:
        """Write what was handled in one transaction; the verdict of each, in order."""
        if not settled:
            return []
        shortcut = partial(_plain, settled=settled) if batch.is_plain(settled) else None
        return await self._owner.submit(
            lambda tx: batch.commit(tx, settled),
            writes=True,
            alone=any(entry.writes for entry in settled),
            shortcut=shortcut,
        )


def _plain(tx: Tx, settled: Sequence[Settled]) -> list[Verdict] | None:
    return batch.commit_plain(tx, settled)
