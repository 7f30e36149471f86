"""What became of each posting: confirmed, refused, shed or to be sent again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from functools import partial
from typing import Final, Protocol

import structlog

from fleet import clock
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.backoff import backoff
from fleet.core.errors import PublishError, PublishNacked, PublishReturned
from fleet.store.bridge import ShedRow
from fleet.telemetry import metrics
from publisher.prefix import Prefix
from publisher.reading import Posting
from publisher.telling import Telling

_REASONS: Final = {PublishNacked: "nacked", PublishReturned: "returned"}

log = structlog.get_logger("publisher")


class Traces(Protocol):
    """Hears of each posting."""

    def began(self, posting: Posting) -> None:
        """It is about to be sent, for the first time; it may be given headers."""

    def ended(self, posting: Posting) -> None:
        """It is settled."""


class Outbox:
    """Posts through `publisher` and remembers what is settled, in order of arrival.

    While anything waits to be sent again, while `unsettled` postings are open or `unsaved` ones
    were not taken, it is not `open`: whoever feeds it then waits for `room`, and with it the
    source. So memory is bounded, however long the broker or the store is away.
    """

    def __init__(
        self,
        publisher: ConfirmedPublisher,
        *,
        unsettled: int = 1024,
        unsaved: int = 20_000,
        first_delay_s: float = 0.05,
        max_delay_s: float = 2.0,
        source: str = "",
        traces: Traces | None = None,
    ) -> None:
        self._publisher = publisher
        self._max_unsettled = unsettled
        self._max_unsaved = unsaved
        self._first_delay_s = first_delay_s
        self._max_delay_s = max_delay_s
        self._prefix: Prefix[Posting] = Prefix()
        self._unsettled = 0
        self._again: list[Posting] = []
        self._refused = asyncio.Event()
        self._moved = asyncio.Event()
        self._held_back = False
        self._closed = False
        self._source = source
        self._traces = traces
        self._settled_at = time.monotonic()
        self._unkept = Telling("an unreadable frame could not be kept")

    @property
    def oldest(self) -> Posting | None:
        """The first posting that was not taken."""
        return self._prefix.first

    @property
    def stalled_s(self) -> float:
        """How long none was settled while some wait for it; 0 where none does."""
        return time.monotonic() - self._settled_at if self._unsettled else 0.0

    @property
    def unsettled(self) -> int:
        """How many postings are neither confirmed nor otherwise settled."""
        return self._unsettled

    @property
    def open(self) -> bool:
        """Whether the next posting may be put now."""
        return (
            not self._held_back
            and self._unsettled < self._max_unsettled
            and len(self._prefix) < self._max_unsaved
            and self._publisher.free
        )

    async def room(self) -> None:
        """Wait until the next posting may be put."""
        while not self.open:
            if not self._publisher.free:
                await self._publisher.room()
            else:
                self._moved.clear()
                await self._moved.wait()

    async def settled(self) -> None:
        """Wait until every posting is settled."""
        while self._unsettled:
            self._moved.clear()
            await self._moved.wait()

    def put(self, posting: Posting) -> None:
        """Post it, and again for as long as it takes."""
        posting.number = self._prefix.arrive(posting)
        if not self._unsettled:
            self._settled_at = time.monotonic()
        self._unsettled += 1
        if self._traces is not None:
            self._traces.began(posting)
        self._post(posting)

    def take(self) -> list[Posting]:
        """The postings before which nothing is unsettled; each is given once, in order."""
        taken = self._prefix.take()
        self._moved.set()
        return taken

    def close(self) -> None:
        """Forget what is open: its answers change nothing any more."""
        self._closed = True
        self._unkept.due(now=True)

    async def resend(self) -> None:
        """Send again what was refused or is unknown, after a delay, in order of arrival."""
        delays = self._delays()
        while True:
            await self._refused.wait()
            before = self._unsettled
            await asyncio.sleep(next(delays))
            self._refused.clear()
            waiting, self._again = sorted(self._again, key=_arrival), []
            for posting in waiting:
                await self._publisher.room()
                self._post(posting)
            if not self._again:
                self._held_back = False
                self._moved.set()
            if self._unsettled < before:
                delays = self._delays()

    def _delays(self) -> Iterator[float]:
        return backoff(random.uniform, first=self._first_delay_s, cap=self._max_delay_s)

    def _post(self, posting: Posting) -> None:
        try:
            self._publisher.post(
                posting.exchange,
                posting.routing_key,
                posting.body,
                headers=posting.headers,
                settled=partial(self._answered, posting),
                lane=posting.lane,
            )
        except PublishError as error:
            self._send_again(posting, error)

    def _answered(self, posting: Posting, error: PublishError | None) -> None:
        if self._closed:
            return
        if error is None:
            self._settle(posting)
            return
        metrics.BRIDGE_REFUSED.labels(self._source, _REASONS.get(type(error), "unknown")).inc()
        if isinstance(error, PublishNacked) and posting.live_only:
            now_ms = clock.now_ms()
            posting.shed = ShedRow(posting.cursor, str(error), now_ms, now_ms - posting.ts)
            self._settle(posting)
        elif isinstance(error, PublishNacked | PublishReturned) and posting.quarantined:
            # Garbage must not hold up what is behind it; the store has its hash and reason.
            self._unkept.note(reason=str(error))
            self._settle(posting)
        else:
            self._send_again(posting, error)

    def _settle(self, posting: Posting) -> None:
        posting.body = b""
        if self._traces is not None:
            self._traces.ended(posting)
        self._settled_at = time.monotonic()
        self._unsettled -= 1
        self._prefix.settle(posting.number)
        self._moved.set()

    def _send_again(self, posting: Posting, error: PublishError) -> None:
        if not self._held_back:
            log.warning("publishing held back", reason=str(error))
        self._held_back = True
        self._again.append(posting)
        self._refused.set()


def _arrival(posting: Posting) -> int:
    return posting.number
