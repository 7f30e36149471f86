"""The story of one event or one effect key: all that the log and the store tell of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from fleet.amqp.log import Logged, open_log
from fleet.core.envelope import EVENT_ID, PARENT_ID
from fleet.core.errors import EnvelopeError
from fleet.core.events import Event, read_event
from fleet.core.ulid import MAX_MS, is_ulid, ulid_ms
from fleet.store import alerts, archive, decisions, effects, story
from fleet.store.alerts import Alert
from fleet.store.api import Effect, Store, Tx
from fleet.store.archive import Archived, Intervention
from fleet.store.decisions import Decision
from fleet.store.story import Row
from topology import names

EARLIER_MS: Final = 60_000
"""How far before an event's own time the log is read: the broker's clock is another one."""
LATER_MS: Final = 60 * 60 * 1000
MOST: Final = 1000
"""Events in one story; a key that stands in more is no key."""


class Told(msgspec.Struct):
    """One event of a story: what it was, where it came from, and what became of it.

    `copies` is how often the log has it: more than one were published again and handled once.
    `event` is None where the log does not have it (any more).
    """

    event_id: str
    event: Event | None = None
    parent: str = ""
    copies: int = 0
    journal: list[Row] = []
    interventions: list[Intervention] = []
    archived: list[Archived] = []
    alert: Alert | None = None


class Story(msgspec.Struct):
    """What is known of `asked`; `events` from parents to children."""

    asked: str
    events: list[Told]
    effects: list[Effect]
    decisions: list[Decision]
    interventions: list[Intervention]

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is known."""
        known = any(one.event or one.journal or one.archived or one.alert for one in self.events)
        return not (known or self.effects or self.decisions)


class _Enough(Exception):  # noqa: N818 - reads as what it is
    """The log has been read far enough."""


class Finder:
    """Picks out of the log what belongs to an id or a key: the event, its kin, and its children."""

    def __init__(self, asked: str, ids: Iterable[str], keys: Iterable[str], until_ms: int) -> None:
        self.found: dict[str, Told] = {}
        self._ids = {*ids, asked} if is_ulid(asked) else set(ids)
        self._keys = {key.encode() for key in keys}
        self._until_ms = until_ms

    def take(self, message: Logged) -> None:
        """Look at one message of the log."""
        event_id, parent = message.headers.get(EVENT_ID), message.headers.get(PARENT_ID)
        if not isinstance(event_id, str) or not is_ulid(event_id):
            return
        if ulid_ms(event_id) > self._until_ms:
            raise _Enough
        is_child = parent in self._ids
        if event_id in self._ids or is_child or self._names_key(message.body):
            self._note(event_id, parent if isinstance(parent, str) else "", message.body)

    def _names_key(self, body: bytes) -> bool:
        return any(b'"' + key + b'"' in body for key in self._keys)

    def _note(self, event_id: str, parent: str, body: bytes) -> None:
        told = self.found.get(event_id)
        if told is None:
            if len(self.found) >= MOST:
                raise _Enough
            told = self.found[event_id] = Told(event_id, _event(body), parent)
            # What its children lead to belongs to the story too.
            self._ids.add(event_id)
        told.copies += 1


async def tell(store: Store, amqp_url: str | None, asked: str, later_ms: int = LATER_MS) -> Story:
    """All that is known of an event id or an effect key.

    The log is read (unless `amqp_url` is None) from a minute before the event's own time until it
    has events of `later_ms` after. Raises BrokerError, TopologyError where it cannot be.
    """
    known = await store.read(lambda tx: decisions.of_keys(tx, [asked]))
    effect = await store.read(lambda tx: effects.get(tx, asked))
    ids = (
        {asked}
        if is_ulid(asked)
        else {one.order_id for one in known} | {one.event_id for one in known}
    )
    keys = [] if is_ulid(asked) else [asked]
    at_ms = _at_ms(asked, effect, known)
    finder = Finder(asked, ids, keys, at_ms + later_ms if at_ms else MAX_MS)
    if amqp_url is not None:
        # An effect's first attempt may be long after its event.
        await _search(amqp_url, at_ms - (EARLIER_MS if ids else LATER_MS), finder)
    found = finder.found
    for event_id in ids:
        found.setdefault(event_id, Told(event_id))
    return await store.read(lambda tx: _filled(tx, asked, found))


async def _search(amqp_url: str, from_ms: int, finder: Finder) -> None:
    since = datetime.fromtimestamp(from_ms / 1000, UTC) if from_ms > 0 else None
    async with open_log(amqp_url, names.LOG, since) as log:
        try:
            await log.catch_up(finder.take)
        except _Enough:
            return


def _at_ms(asked: str, effect: Effect | None, known: list[Decision]) -> int:
    """When it was; 0 where nobody knows."""
    if is_ulid(asked):
        return ulid_ms(asked)
    if known:
        return min(ulid_ms(one.event_id) for one in known)
    return effect.first_ms if effect else 0


def _filled(tx: Tx, asked: str, found: dict[str, Told]) -> Story:
    """The story, with what the store knows of each of its events."""
    for told in found.values():
        told.journal = story.journal(tx, told.event_id)
        told.interventions = archive.interventions(tx, told.event_id)
        told.archived = [
            each
            for kind in ("resolved", "edited")
            for each in archive.find(tx, ids=[told.event_id], kind=kind)
        ]
        told.alert = alerts.get(tx, told.event_id)
    keys = dict.fromkeys([asked, *(_key(told.event) for told in found.values())])
    wanted = [key for key in keys if key]
    return Story(
        asked=asked,
        events=_ordered(found),
        effects=list(effects.find(tx, wanted).values()),
        decisions=decisions.of_keys(tx, wanted),
        interventions=[
            done
            for key in wanted
            if key not in found  # else it is told with its event
            for done in archive.interventions(tx, key)
        ],
    )


def _ordered(found: dict[str, Told]) -> list[Told]:
    """Parents before their children, else by time."""
    told: list[Told] = []
    waiting = sorted(found.values(), key=lambda one: one.event_id)
    while waiting:
        ready = [one for one in waiting if not any(one.parent == p.event_id for p in waiting)]
        told += ready or waiting
        waiting = [one for one in waiting if one not in ready] if ready else []
    return told


def _key(event: Event | None) -> str:
    key: Any = event.payload.get("key") if event else None
    return key if isinstance(key, str) and event and event.type != "alert.raised" else ""


def _event(body: bytes) -> Event | None:
    try:
        return read_event(body, MAX_MS, payload=False)
    except EnvelopeError:
        return None
