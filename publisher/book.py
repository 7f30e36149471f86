"""What the store is told: the cursor, and what did not reach the exchange before it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial

import structlog

from fleet import clock
from fleet.core.errors import StateError
from fleet.store import bridge
from fleet.store.api import Lease, Store, Write
from fleet.telemetry import metrics
from publisher.reading import Posting

log = structlog.get_logger("publisher")


class Book:
    """Collects what passed the settled prefix of `source`, and saves it under `lease`."""

    def __init__(self, store: Store, source: str, lease: Lease) -> None:
        self._store = store
        self._source = source
        self._lease = lease
        self._saving = asyncio.Lock()
        self._passed: list[Posting] = []
        self.passed = 0
        """How many postings it took note of."""

    def add(self, passed: Sequence[Posting]) -> None:
        """Take note of postings that passed, in order; those only confirmed cost a count."""
        self._passed.extend(passed)
        self.passed += len(passed)

    @property
    def oldest(self) -> Posting | None:
        """The first posting that is not saved."""
        return self._passed[0] if self._passed else None

    @property
    def unsaved(self) -> int:
        """How many postings passed since the last save."""
        return len(self._passed)

    async def save(self) -> bool:
        """Write it down in one transaction; False, and nothing lost, where the store cannot."""
        async with self._saving:
            passed, self._passed = self._passed, []
            try:
                if passed:
                    await self._store.run(self._work(passed))
            except StateError as error:
                self._passed = passed + self._passed
                log.warning("cursor not saved", source=self._source, reason=str(error))
                return False
            self._tally(passed)
            return True

    def _tally(self, saved: Sequence[Posting]) -> None:
        counts = _counts(saved)
        for outcome in ("published", "shed", "quarantined"):
            metrics.BRIDGE_EVENTS.labels(self._source, outcome).inc(counts[outcome])
        metrics.BRIDGE_MISSED.labels(self._source).inc(counts["missed"])

    def _work(self, passed: Sequence[Posting]) -> Write:
        return partial(
            bridge.settle_prefix,
            source=self._source,
            cursor=passed[-1].cursor,
            lease=self._lease,
            now_ms=clock.now_ms(),
            shed=[each.shed for each in passed if each.shed],
            missed=[each.missed for each in passed if each.missed],
            quarantined=[each.quarantined for each in passed if each.quarantined],
            counts=_counts(passed),
        )


def _counts(passed: Sequence[Posting]) -> Counter[str]:
    counts: Counter[str] = Counter(map(_outcome, passed))
    counts["received"] = len(passed)
    counts["missed"] = sum(1 for each in passed if each.missed)
    return +counts


def _outcome(posting: Posting) -> str:
    if posting.quarantined:
        return "quarantined"
    return "shed" if posting.shed else "published"
