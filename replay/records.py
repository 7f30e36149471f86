"""What is written down of a message that is sent or taken away: who did what, and what it was."""

from __future__ import annotations

from fleet.amqp.harvest import Held
from fleet.store.archive import Archived, Intervention, Kind
from replay import roads
from replay.entry import Entry, told
from replay.place import Place


def archived(
    place: Place, entry: Entry, held: Held, *, kind: Kind, note: str, at_ms: int
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


def sent(
    place: Place, entry: Entry, held: Held, body: bytes, *, note: str, at_ms: int
) -> Intervention:
    """That a message is sent home, as it was or with another body."""
    return Intervention(
        at_ms=at_ms,
        operator=place.operator,
        action="replay" if body == held.body else "edit",
        queue=place.queue,
        message_id=entry.id,
        before=entry.digest,
        after=roads.digest(body),
        note=note,
    )
