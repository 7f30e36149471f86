"""Takes messages out of a queue into the archive and back, and to a file and back."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO, Final

import msgspec

from fleet import clock
from fleet.amqp.harvest import Harvest, Held
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.errors import PublishError, SettingsError
from fleet.core.ulid import is_ulid
from fleet.store import archive, journal
from fleet.store.api import Settled, Tx
from fleet.store.archive import Archived, Intervention, plain
from replay import roads
from replay.entry import Entry, read_entry, told
from replay.place import MOST_BYTES, Place, shown
from replay.records import archived
from replay.selection import Selection
from topology import names

BATCH: Final = 200
State = tuple[str, str, int]
"""Id, digest and replay count: one state of one message."""


class Exported(msgspec.Struct, frozen=True):
    """A line of an export. The body is `text`, or base64 in `octets` where it is no text."""

    queue: str
    id: str
    digest: str
    headers: dict[str, Any]
    text: str | None = None
    octets: str = ""

    @property
    def body(self) -> bytes:
        """The body as it was. Raises ValueError where it is not."""
        body = base64.b64decode(self.octets) if self.text is None else self.text.encode()
        if hashlib.sha256(body).hexdigest() != self.digest:
            raise ValueError("the body does not fit its digest")
        return body


async def resolve(place: Place, selection: Selection, note: str, limit: int = 0) -> list[str]:
    """Archive what is selected, and only then take it off the queue; the ids.

    What is killed in between stays in the queue, and is archived once however often it is done.
    """
    resolved: list[str] = []
    while True:
        before, is_last = len(resolved), await _some(place, selection, note, limit, resolved)
        if is_last or len(resolved) == before:
            return resolved


async def _some(
    place: Place, selection: Selection, note: str, limit: int, resolved: list[str]
) -> bool:
    """Resolve what fits into memory; whether that was all."""
    picked: list[tuple[Entry, Held]] = []
    size, most = 0, limit - len(resolved) if limit else 0

    def seen(entry: Entry, held: Held) -> bool:
        nonlocal size
        if selection.matches(entry, held.body):
            picked.append((entry, held))
            size += entry.size
        return (not most or len(picked) < most) and size < MOST_BYTES

    async with place.harvest() as harvest:
        await harvest.gather(shown(seen))
        for start in range(0, len(picked), BATCH):
            part = picked[start : start + BATCH]
            await _archive(place, harvest, part, note)
            resolved += [entry.id for entry, _ in part]
    return size < MOST_BYTES


async def _archive(
    place: Place, harvest: Harvest, part: Sequence[tuple[Entry, Held]], note: str
) -> None:
    at_ms = clock.now_ms()
    kept = [
        archived(place, entry, held, kind="resolved", note=note, at_ms=at_ms)
        for entry, held in part
    ]

    def write(tx: Tx) -> None:
        archive.add(tx, kept)
        archive.note(tx, [_done(place, each, "resolve", note, at_ms) for each in kept])
        # What the broker parked has no row yet; without one the audit would look for it for ever.
        if not place.is_unrouted:
            journal.insert(tx, [_row(place, each) for each in kept if is_ulid(each.message_id)])

    await place.store.run(write)
    for _, held in part:
        harvest.ack(held)
    await harvest.flush()


async def restore(
    place: Place, publisher: ConfirmedPublisher, ids: Sequence[str], note: str
) -> list[str]:
    """Bring archived messages back into the queue they stood in; the ids.

    Killed in between, one may come back twice; a replay of both is done once.
    """
    restored: list[str] = []
    while found := await place.store.read(partial(archive.find, ids=ids)):
        for entry in found:
            await _publish(publisher, entry.queue, entry.headers, entry.body)
            await place.store.run(partial(_brought_back, place=place, entry=entry, note=note))
            restored.append(entry.message_id)
    return restored


def _brought_back(tx: Tx, place: Place, entry: Archived, note: str) -> None:
    at_ms = clock.now_ms()
    archive.restored(tx, entry, at_ms)
    archive.note(tx, [_done(place, entry, "restore", note, at_ms)])


async def export(place: Place, selection: Selection, write: Callable[[bytes], object]) -> int:
    """Write each selected message as a line of JSON; the queue keeps all of them."""
    count = 0

    def seen(entry: Entry, held: Held) -> bool:
        nonlocal count
        if selection.matches(entry, held.body):
            write(msgspec.json.encode(_exported(place, entry, held)) + b"\n")
            count += 1
        return True

    await place.look(seen)
    return count


async def bring_in(
    place: Place, publisher: ConfirmedPublisher, source: BinaryIO
) -> tuple[int, int]:
    """Put the messages of an export into the queue; how many, and how many were there already.

    Raises SettingsError, with the line, where one is none or of another queue; those before it
    are in the queue then, and a second import leaves them alone.
    """
    there: set[State] = set()

    def seen(entry: Entry, _held: Held) -> bool:
        there.add((entry.id, entry.digest, entry.replays))
        return True

    await place.look(seen)
    added = skipped = 0
    for line in _lines(place, source):
        body = line.body
        entry = read_entry(line.headers, body)
        state = (entry.id, entry.digest, entry.replays)
        if state in there:
            skipped += 1
            continue
        await _publish(publisher, place.queue, line.headers, body)
        there.add(state)
        added += 1
    return added, skipped


def _lines(place: Place, source: Iterable[bytes]) -> Iterator[Exported]:
    for number, raw in enumerate(source, 1):
        try:
            line = msgspec.json.decode(raw, type=Exported)
            hash(line.body)  # raises where the body does not fit its digest
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise SettingsError(f"Line {number} is no exported message: {error}.") from None
        if line.queue != place.queue:
            raise SettingsError(
                f"Line {number} is of {line.queue}, not of {place.queue}; name its service."
            )
        yield line


async def _publish(
    publisher: ConfirmedPublisher, queue: str, headers: dict[str, Any], body: bytes
) -> None:
    exchange = names.UNROUTED if queue == names.UNROUTED else names.DLX
    try:
        await publisher.publish(exchange, queue, body, headers=headers)
    except PublishError as error:
        raise SettingsError(f"{queue} did not take it ({error}); run it again.") from None


def _exported(place: Place, entry: Entry, held: Held) -> Exported:
    try:
        text: str | None = held.body.decode()
    except UnicodeDecodeError:
        text = None
    return Exported(
        queue=place.queue,
        id=entry.id,
        digest=entry.digest,
        headers=plain(roads.unrouted(dict(told(held.headers)), entry)),
        text=text,
        octets="" if text is not None else base64.b64encode(held.body).decode(),
    )


def _done(place: Place, entry: Archived, action: str, note: str, at_ms: int) -> Intervention:
    return Intervention(
        at_ms=at_ms,
        operator=place.operator,
        action=action,
        queue=entry.queue,
        message_id=entry.message_id,
        before=entry.digest,
        note=note,
    )


def _row(place: Place, entry: Archived) -> Settled:
    return Settled(
        service=place.service.name,
        event_id=entry.message_id,
        outcome="failed",
        attempt=1,
        worker=place.operator,
        at_ms=entry.at_ms,
        reason=f"resolved: {entry.note}"[:500],
        replay_count=entry.replays,
    )
