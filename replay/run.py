"""Sends planned messages home: publish with confirm, then ack. Killed anywhere, it loses nothing.

The queue itself is the memory of a run: what was sent and acked is gone from it, and what failed
again has a higher replay count, so a second run of a plan finds nothing to do. A message that was
sent and not acked is sent again, with the same replay count, and the journal absorbs it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

import msgspec

from fleet import clock
from fleet.amqp import frames
from fleet.amqp.connection import Link
from fleet.amqp.harvest import Harvest, Held
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.errors import BrokerError, DataError, PublishError, PublishNacked
from fleet.core.signature import SIGNATURE, Keys
from fleet.store import archive
from fleet.store.api import Tx
from fleet.store.archive import Archived, Intervention
from replay import roads
from replay.entry import Entry, told
from replay.place import Place, shown
from replay.plan import Item, Meant
from replay.verdict import SENT, Judge, Reading

MOST_BYTES: Final = 256 << 20
"""Bodies held at a time; a queue with more is gone through in several sweeps."""
SWEEP_S: Final = 240.0
"""How long a sweep may hold the queue: RabbitMQ's consumer timeout is 30 minutes."""
ROOM_S: Final = 30.0
BLOCK: Final = 1_000
"""So many are sent in the order of their ids, by the order they stand in: the acks of a block that
is done are one, however its messages were mixed, and ten thousand single ones take seconds."""
FLUSH_S: Final = 1.0
"""What was sent is acked after so long, also amid a block: a slow run that dies repeats little."""
STOPPED: Final = "stopped before its turn"
PATIENCE_S: Final = (0.5, 1.0, 2.0, 4.0)
"""Waits for a full queue, before the rest is left where it is."""

Edit = Callable[[bytes], bytes]
Progress = Callable[[int], object]


class Parked(NamedTuple):
    """A message in our hands that is meant."""

    entry: Entry
    held: Held
    reading: Reading


class Report(msgspec.Struct):
    """What a run did. Ids with a reason are in the queue as they were."""

    sent: int = 0
    refused: dict[str, str] = {}
    """Not sent: it changed since the plan, or would do nothing good now."""
    left: dict[str, str] = {}
    """Not confirmed: a full queue, no answer, or stopped before its turn."""
    gone: int = 0
    """Planned and not there: sent before, or in the hands of somebody else."""
    stopped: str = ""
    """Why it ended before its end."""

    @property
    def is_complete(self) -> bool:
        """Whether all that was planned is sent or was gone already."""
        return not (self.refused or self.left or self.stopped)


class Runner:
    """Sends items home, at most `rate` a second where that is set; `stop` ends it between two.

    `edit` gives the new body of a message; whose reason is `note`. What is edited is signed anew
    with `keys`; without them an event that was signed is not edited.
    """

    def __init__(
        self,
        place: Place,
        judge: Judge,
        publisher: ConfirmedPublisher,
        *,
        rate: float = 0,
        stop: asyncio.Event | None = None,
        edit: Edit | None = None,
        note: str = "",
        progress: Progress = lambda _: None,
        keys: Keys | None = None,
    ) -> None:
        self._keys = keys
        self.report = Report()
        self._place = place
        self._judge = judge
        self._publisher = publisher
        self._rate = rate
        self._stop = stop or asyncio.Event()
        self._edit = edit
        self._note = note
        self._progress = progress
        self._next_s = 0.0
        self._is_full = False

    async def run(self, items: Sequence[Item]) -> None:
        """Send these. Raises BrokerError or StateError; whatever is not acked is in the queue."""
        step = max(1, int(self._rate * SWEEP_S)) if self._rate else len(items)
        for start in range(0, len(items), step):
            await self._chunk(items[start : start + step])
            if self._stop.is_set():
                self.report.stopped = "interrupted"
                return

    async def _chunk(self, items: Sequence[Item]) -> None:
        rest, is_last = list(items), False
        while rest and not is_last and not self._stop.is_set():
            found, is_last = await self._sweep(rest)
            rest = [each for each in rest if (each.id, each.replays) not in found]
        if not self._stop.is_set():
            self.report.gone += len(rest)

    async def _sweep(self, items: Sequence[Item]) -> tuple[set[tuple[str, int]], bool]:
        """Send what is found of the items; which were found, and whether the queue has no more."""
        meant, parked, size, is_last = Meant(items), list[Parked](), 0, True
        found: set[tuple[str, int]] = set()

        def seen(entry: Entry, held: Held) -> bool:
            nonlocal size, is_last
            standing = meant.standing(entry)
            if standing == "meant":
                parked.append(
                    Parked(entry, held, self._judge.read(entry, held.body, clock.now_ms()))
                )
                size += entry.size
            elif standing == "changed":
                self.report.refused[entry.id] = "its body changed since the plan"
            if standing is not None:
                found.add((entry.id, entry.replays))
            is_last = size < MOST_BYTES
            return is_last and len(parked) < len(items)

        async with self._place.harvest() as harvest:
            await harvest.gather(shown(seen))
            for start in range(0, len(parked), BLOCK):
                block = sorted(parked[start : start + BLOCK], key=lambda each: each.entry.id)
                await self._settle(harvest, block)
                if self._stop.is_set():
                    self._leave((each.entry.id for each in parked[start + BLOCK :]), STOPPED)
                    break
        return found, is_last

    async def _settle(self, harvest: Harvest, parked: Sequence[Parked]) -> None:
        known = await self._place.know(self._judge, [each.reading for each in parked])
        going: list[tuple[Parked, bytes]] = []
        for each in parked:
            body = self._edit(each.held.body) if self._edit else each.held.body
            reading = (
                self._judge.read(each.entry, body, clock.now_ms()) if self._edit else each.reading
            )
            verdict = self._judge.judge(reading, known)
            if body != each.held.body and SIGNATURE in each.held.headers and self._keys is None:
                self.report.refused[each.entry.id] = "it is signed; set SIGNING_KEY to edit it"
            elif verdict.outcome in SENT:
                going.append((each, body))
            else:
                self.report.refused[each.entry.id] = verdict.why
        await self._write_down(going)
        # Where a block found no room in all that time, the next one is not waited for.
        for delay in (0.0,) if self._is_full else (*PATIENCE_S, 0.0):
            going = await self._send(harvest, going)
            if not going or not delay or self._stop.is_set():
                break
            await self._wait(delay)
        self._is_full = bool(going)
        why = STOPPED if self._stop.is_set() else "its queue is full"
        self._leave((each.entry.id for each, _ in going), why)

    def _leave(self, ids: Iterable[str], why: str) -> None:
        self.report.left.update(dict.fromkeys(ids, why))

    async def _write_down(self, going: Sequence[tuple[Parked, bytes]]) -> None:
        """Keep what an edit replaces, and who did what, before anything is sent."""
        at_ms, place = clock.now_ms(), self._place
        kept = [self._kept(each, at_ms) for each, body in going if body != each.held.body]
        done = [self._done(each, body, at_ms) for each, body in going]

        def write(tx: Tx) -> None:
            archive.add(tx, kept)
            archive.note(tx, done)

        if done:
            await place.store.run(write)

    def _kept(self, each: Parked, at_ms: int) -> Archived:
        return archived(
            self._place, each.entry, each.held, kind="edited", note=self._note, at_ms=at_ms
        )

    def _done(self, each: Parked, body: bytes, at_ms: int) -> Intervention:
        edited = body != each.held.body
        return Intervention(
            at_ms=at_ms,
            operator=self._place.operator,
            action="edit" if edited else "replay",
            queue=self._place.queue,
            message_id=each.entry.id,
            before=each.entry.digest,
            after=roads.digest(body),
            note=self._note,
        )

    async def _send(
        self, harvest: Harvest, going: Sequence[tuple[Parked, bytes]]
    ) -> list[tuple[Parked, bytes]]:
        """Send until a queue is full; what is to be tried again."""
        again: list[tuple[Parked, bytes]] = []
        flushed_s = time.monotonic()
        for number, (each, body) in enumerate(going):
            if again or not await self._turn():
                await self._publisher.drain(ROOM_S)
                await harvest.flush()
                return [*again, *going[number:]]
            self._post(harvest, each, body, again)
            if time.monotonic() - flushed_s > FLUSH_S:
                flushed_s = time.monotonic()
                await harvest.flush()
        await self._publisher.drain(ROOM_S)
        await harvest.flush()
        return again

    def _post(
        self, harvest: Harvest, each: Parked, body: bytes, again: list[tuple[Parked, bytes]]
    ) -> None:
        way = roads.home(self._place, self._judge, each.entry)
        headers = roads.headers(
            each.held.headers,
            each.entry,
            even_if_stale=self._judge.even_if_stale,
            edited_by=self._place.operator if body != each.held.body else "",
        )
        if self._keys is not None and body != each.held.body:
            headers = self._keys.stamped(headers, body)

        def settled(error: PublishError | None) -> None:
            if error is None:
                harvest.ack(each.held)
                self.report.sent += 1
                self._progress(1)
            elif isinstance(error, PublishNacked):
                again.append((each, body))
            else:
                self.report.left[each.entry.id] = f"{error} Running it again is safe."

        try:
            self._publisher.post(way.exchange, way.key, body, headers=headers, settled=settled)
        except DataError as error:
            self.report.refused[each.entry.id] = str(error)

    async def _turn(self) -> bool:
        """Wait until the next one may be sent; False where it is not to be."""
        if self._rate:
            self._next_s = max(self._next_s + 1 / self._rate, time.monotonic() - 1 / self._rate)
            await self._wait(self._next_s - time.monotonic())
        if self._stop.is_set():
            return False
        try:
            async with asyncio.timeout(ROOM_S):
                await self._publisher.room()
        except TimeoutError:
            self.report.stopped = "the broker takes nothing more"
            self._stop.set()
        return not self._stop.is_set()

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._stop.wait()


def archived(
    place: Place, entry: Entry, held: Held, *, kind: archive.Kind, note: str, at_ms: int
) -> Archived:
    """What is kept of a message that leaves its queue."""
    return Archived(
        kind=kind,
        queue=place.queue,
        message_id=entry.id,
        digest=entry.digest,
        replays=entry.replays,
        event_type=entry.type,
        headers=roads.unrouted(dict(told(held.headers)), entry),
        body=held.body,
        note=note,
        operator=place.operator,
        at_ms=at_ms,
    )


@asynccontextmanager
async def open_publisher(url: str) -> AsyncIterator[ConfirmedPublisher]:
    """A publisher over a connection of its own, that keeps the order. Raises BrokerError."""
    async with (
        Link(url, "replay-failed") as link,
        ConfirmedPublisher(link, channels=1, max_body=frames.ANY_BODY) as publisher,
    ):
        await _ready(publisher)
        yield publisher
        if publisher.refusal is not None:
            raise publisher.refusal


async def _ready(publisher: ConfirmedPublisher) -> None:
    """Return once it can publish: one that is stopped while it opens its channels may not end."""
    try:
        async with asyncio.timeout(ROOM_S):
            await publisher.room()
    except TimeoutError:
        raise BrokerError("The broker opens no channel to publish on; run it again.") from None
