"""Sends a block of parked messages home: what it does is written down, sent, confirmed, acked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple, TypeAlias

from fleet import clock
from fleet.amqp import frames
from fleet.amqp.connection import Link
from fleet.amqp.harvest import Harvest, Held
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.errors import BrokerError, DataError, PublishError, PublishNacked
from fleet.core.signature import SIGNATURE, Keys
from fleet.store import archive
from fleet.store.api import Tx
from replay import records, roads
from replay.entry import Entry
from replay.place import Place
from replay.report import Report
from replay.verdict import SENT, Judge, Knowledge, Reading

ROOM_S: Final = 30.0
"""How long the broker may take to make room for one message, or to confirm all."""
FLUSH_S: Final = 1.0
"""What was sent is acked after so long, also amid a block: a slow run that dies repeats little."""
PATIENCE_S: Final = (0.5, 1.0, 2.0, 4.0)
"""Waits for a full queue, before the rest is left where it is."""
STOPPED: Final = "stopped before its turn"

Edit: TypeAlias = Callable[[bytes], bytes]
Progress: TypeAlias = Callable[[int], object]


class Parked(NamedTuple):
    """A message in our hands that is meant."""

    entry: Entry
    held: Held
    reading: Reading


class Outgoing(NamedTuple):
    """A message that is to be sent, with the body that it shall have."""

    entry: Entry
    held: Held
    body: bytes

    @property
    def is_edited(self) -> bool:
        """Whether that is another body than it has."""
        return self.body != self.held.body


class Sender:
    """Sends blocks, at most `rate` messages a second where that is set, until `stop` is set.

    `edit` gives the new body of a message; whose reason is `note`. What is edited is signed anew
    with `keys`; without them an event that was signed is not edited. `report` says what became of
    each message, `progress` is told how many more were sent.
    """

    def __init__(
        self,
        place: Place,
        judge: Judge,
        publisher: ConfirmedPublisher,
        report: Report,
        *,
        rate: float,
        stop: asyncio.Event,
        edit: Edit | None,
        note: str,
        progress: Progress,
        keys: Keys | None,
    ) -> None:
        self._place = place
        self._judge = judge
        self._publisher = publisher
        self._report = report
        self._rate = rate
        self._stop = stop
        self._edit = edit
        self._note = note
        self._progress = progress
        self._keys = keys
        self._next_s = 0.0
        self._is_full = False

    async def send(self, harvest: Harvest, block: Sequence[Parked]) -> None:
        """Send those of a block that a replay is good for, in order, and ack what is confirmed."""
        known = await self._place.know(self._judge, [each.reading for each in block])
        going = [out for each in block if (out := self._outgoing(each, known)) is not None]
        await self._write_down(going)
        # Where a block found no room in all that time, the next one is not waited for.
        for delay in (0.0,) if self._is_full else (*PATIENCE_S, 0.0):
            going = await self._send(harvest, going)
            if not going or not delay or self._stop.is_set():
                break
            await self._wait(delay)
        self._is_full = bool(going)
        why = STOPPED if self._stop.is_set() else "its queue is full"
        self._report.leave((each.entry.id for each in going), why)

    def _outgoing(self, parked: Parked, known: Knowledge) -> Outgoing | None:
        """What is sent of a message; None where it is refused."""
        entry, held, reading = parked
        out = Outgoing(entry, held, self._edit(held.body) if self._edit else held.body)
        if self._edit:
            reading = self._judge.read(entry, out.body, clock.now_ms())
        verdict = self._judge.judge(reading, known)
        if out.is_edited and SIGNATURE in held.headers and self._keys is None:
            why = "it is signed; set SIGNING_KEY to edit it"
        elif verdict.outcome in SENT:
            return out
        else:
            why = verdict.why
        self._report.refused[entry.id] = why
        return None

    async def _write_down(self, going: Sequence[Outgoing]) -> None:
        """Keep what an edit replaces, and who did what, before anything is sent."""
        at_ms, place, note = clock.now_ms(), self._place, self._note
        kept = [
            records.archived(place, each.entry, each.held, kind="edited", note=note, at_ms=at_ms)
            for each in going
            if each.is_edited
        ]
        done = [records.sent(place, *each, note=note, at_ms=at_ms) for each in going]

        def write(tx: Tx) -> None:
            archive.add(tx, kept)
            archive.note(tx, done)

        if done:
            await place.store.run(write)

    async def _send(self, harvest: Harvest, going: Sequence[Outgoing]) -> list[Outgoing]:
        """Send until a queue is full; what is to be tried again."""
        again: list[Outgoing] = []
        flushed_s = time.monotonic()
        for number, each in enumerate(going):
            if again or not await self._turn():
                await self._publisher.drain(ROOM_S)
                await harvest.flush()
                return [*again, *going[number:]]
            self._post(harvest, each, again)
            if time.monotonic() - flushed_s > FLUSH_S:
                flushed_s = time.monotonic()
                await harvest.flush()
        await self._publisher.drain(ROOM_S)
        await harvest.flush()
        return again

    def _post(self, harvest: Harvest, each: Outgoing, again: list[Outgoing]) -> None:
        way = roads.home(self._place, self._judge, each.entry)
        headers = roads.headers(
            each.held.headers,
            each.entry,
            even_if_stale=self._judge.even_if_stale,
            edited_by=self._place.operator if each.is_edited else "",
        )
        if self._keys is not None and each.is_edited:
            headers = self._keys.stamped(headers, each.body)

        def settled(error: PublishError | None) -> None:
            if error is None:
                harvest.ack(each.held)
                self._report.sent += 1
                self._progress(1)
            elif isinstance(error, PublishNacked):
                again.append(each)
            else:
                self._report.left[each.entry.id] = f"{error} Running it again is safe."

        try:
            self._publisher.post(way.exchange, way.key, each.body, headers=headers, settled=settled)
        except DataError as error:
            self._report.refused[each.entry.id] = str(error)

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
            self._report.stopped = "the broker takes nothing more"
            self._stop.set()
        return not self._stop.is_set()

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._stop.wait()


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
