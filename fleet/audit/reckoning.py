"""What became of each event: sets in, figures out. Pure.

emitted   = published + shed + quarantined + missed (+ unaccounted: published nowhere)
published = done + skipped + expired + failed + waiting + unrouted (+ unaccounted: in no journal)
            + elsewhere: for services that are not looked at
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Literal, TypeAlias

from fleet.audit.ids import Id

Kind: TypeAlias = Literal["", "journaled", "pure"]
"""How a service takes a type: not at all, with a journal row each, or without."""
Road: TypeAlias = Literal["published", "shed", "quarantined", "missed", "unaccounted"]
"""How an event left its source."""

WORST_FIRST: Final = ("unaccounted", "waiting", "failed", "expired", "skipped", "done", "unrouted")
FINAL: Final = frozenset({"done", "skipped", "expired", "failed"})
NOBODY: Final[frozenset[Id]] = frozenset()


@dataclass(frozen=True, slots=True)
class Part:
    """What is known of one service."""

    name: str
    kind: Callable[[str], Kind]
    """How it takes a type."""
    journal: Mapping[Id, str]
    """Its journal: the outcome of each event."""
    failed: Collection[Id] = NOBODY
    """What is in its failed queue, by whomever it was put there."""
    holds: bool = False
    """Whether its queues, buckets or workers still have anything."""
    since: Callable[[str], Id] = lambda _: b""
    """The id from which on it is fed with a type: what is older need not have come to it."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known; an id may stand in any number of these."""

    log: Mapping[Id, str]
    """The type of each event in the log."""
    parts: Sequence[Part]
    """The services."""
    shed: Collection[Id] = NOBODY
    """What the bridge journalled as shed."""
    unrouted: Collection[Id] = NOBODY
    """What is in the queue of what nobody wanted."""
    quarantined: Collection[Id] = NOBODY
    """The ids that can be made out in quarantined frames."""
    nameless: int = 0
    """Quarantined frames in which none can."""
    missed: Sequence[tuple[Id, Id]] = ()
    """Ranges that the source could not give again; ends excluded."""
    witness: Collection[Id] = NOBODY
    """What the source itself says it emitted, where it can be asked."""
    elsewhere: Callable[[str], bool] = lambda _: False
    """Whether a type is for a service that is none of `parts`."""
    until: Id = b"\xff" * 16
    """The last id that counts: what a running fleet goes on to do is no part of this reckoning."""


@dataclass(slots=True)
class Tally:
    """Events by what became of them; those in no class by their ids."""

    counts: Counter[str] = field(default_factory=Counter)
    unaccounted: list[Id] = field(default_factory=list)
    by_count: int = 0
    """How many of the done ones are known by count only: pure handlers keep no journal."""

    def add(self, event: Id, standing: str) -> None:
        """Count one event."""
        self.counts[standing] += 1
        if standing == "unaccounted":
            self.unaccounted.append(event)

    @property
    def published(self) -> int:
        """All that was published to whom this tally is for."""
        return self.counts.total() - self.counts["shed"]


@dataclass(slots=True)
class Reckoning:
    """The figures: how events left their source, what became of them, and per service."""

    roads: Counter[str] = field(default_factory=Counter)
    fleet: Tally = field(default_factory=Tally)
    """Each published event once: as the service has it that is least done with it."""
    services: dict[str, Tally] = field(default_factory=dict)
    unaccounted: list[Id] = field(default_factory=list)
    """Every id that is in no class, on whichever side of the exchange it went missing; sorted."""

    @property
    def emitted(self) -> int:
        """All events."""
        return self.roads.total()


def reckon(evidence: Evidence) -> Reckoning:
    """Put every event into exactly one class."""
    result = Reckoning(services={part.name: Tally() for part in evidence.parts})
    parts = [_Reader(part, evidence, result.services[part.name]) for part in evidence.parts]
    for event in _universe(evidence):
        road, standing = _place(event, evidence, parts)
        result.roads[road] += 1
        if standing:
            result.fleet.add(event, standing)
        if "unaccounted" in (road, standing):
            result.unaccounted.append(event)
    result.roads["quarantined"] += evidence.nameless
    result.unaccounted.sort()
    return result


class _Reader:
    """One service's view, with what it wants of each type remembered."""

    def __init__(self, part: Part, evidence: Evidence, tally: Tally) -> None:
        self._part = part
        self._evidence = evidence
        self._tally = tally
        self._wants: dict[str, tuple[Kind, Id]] = {}

    def standing(self, event: Id, event_type: str | None) -> str | None:
        """What became of the event here; None where it was never meant to come."""
        outcome = self._part.journal.get(event, "")
        if outcome not in FINAL:
            outcome = self._without_row(event, event_type)
        if outcome:
            self._tally.add(event, outcome)
        return outcome or None

    def may_hold(self, event_type: str) -> bool:
        """Whether events of the type that were never meant to come may wait here all the same."""
        return self._part.holds and bool(self._want(event_type)[0])

    def _want(self, event_type: str) -> tuple[Kind, Id]:
        known = self._wants.get(event_type)
        if known is None:
            part = self._part
            known = self._wants[event_type] = part.kind(event_type), part.since(event_type)
        return known

    def _without_row(self, event: Id, event_type: str | None) -> str:
        part, evidence = self._part, self._evidence
        kind, since = self._want(event_type) if event_type is not None else ("", b"")
        if event in part.failed:
            return "failed"
        if not kind:
            return ""
        if event in evidence.unrouted:
            return "unrouted"
        if event in evidence.shed:
            return "shed"
        if event < since:
            return ""
        return "waiting" if part.holds else self._drained(kind)

    def _drained(self, kind: Kind) -> str:
        if kind == "journaled":
            return "unaccounted"
        self._tally.by_count += 1
        return "done"


def _place(event: Id, evidence: Evidence, parts: Sequence[_Reader]) -> tuple[Road, str | None]:
    event_type = evidence.log.get(event)
    standings = {part.standing(event, event_type) for part in parts}
    for standing in WORST_FIRST:
        if standing in standings:
            return "published", standing
    # Done beats shed: a nack can mean that one queue of several was full.
    if event in evidence.shed:
        return "shed", None
    if event_type is not None:
        return "published", _unclaimed(event, event_type, evidence, parts)
    if event in evidence.quarantined:
        return "quarantined", None
    if any(after < event < before for after, before in evidence.missed):
        return "missed", None
    return "unaccounted", None


def _unclaimed(event: Id, event_type: str, evidence: Evidence, parts: Sequence[_Reader]) -> str:
    """What became of a published event that no service was meant to have."""
    if event in evidence.unrouted:
        return "unrouted"
    if evidence.elsewhere(event_type):
        return "elsewhere"
    return "waiting" if any(part.may_hold(event_type) for part in parts) else "unaccounted"


def _universe(evidence: Evidence) -> Iterator[Id]:
    """Every id that stands anywhere and counts, once."""
    until = evidence.until
    yield from (event for event in evidence.log if event <= until)
    others: set[Id] = set()
    known = (evidence.witness, evidence.shed, evidence.quarantined)
    for event in chain(*known, *(part.journal for part in evidence.parts)):
        if event <= until and event not in evidence.log and event not in others:
            others.add(event)
            yield event
