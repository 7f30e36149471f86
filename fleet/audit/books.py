"""What the store knows, as an audit needs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from fleet.audit.ids import Id, pack, pack_if_ulid
from fleet.core.ulid import MAX_MS, make_ulid
from fleet.store import archive, audit, positions
from fleet.store.api import BRIDGE, Store, Tx

LAST: Final = make_ulid(MAX_MS, b"\xff" * 10)


@dataclass(slots=True)
class Journal:
    """The journal of one service."""

    outcomes: dict[Id, str] = field(default_factory=dict)
    done_by: Counter[str] = field(default_factory=Counter)
    """How many events each worker has done."""
    ages_ms: Counter[int] = field(default_factory=Counter)
    """Milliseconds from the stream to the handler, of ticks done at the first attempt."""


@dataclass(frozen=True, slots=True)
class Books:
    """Everything beside the journals."""

    shed: frozenset[Id]
    missed: tuple[tuple[str, str, int | None], ...]
    """After which id, before which, and how many there were where that is known."""
    quarantined: int
    effects: dict[str, dict[str, int]]
    """By kind and state."""
    positions: dict[str, int]
    doubled: int
    """Positions of the venue that stand under more than one effect key."""
    archived: dict[str, int] = field(default_factory=dict)
    """Messages that an operator resolved, by the queue they stood in."""

    @property
    def effects_by_state(self) -> Counter[str]:
        """The same over all kinds."""
        return sum((Counter(states) for states in self.effects.values()), Counter())


async def read_journal(store: Store, service: str, is_tick: Callable[[Id], bool]) -> Journal:
    """The whole journal of a service."""
    journal = Journal()
    async for rows in audit.entries(store, service):
        for row in rows:
            event = pack(row.event_id)
            journal.outcomes[event] = row.outcome
            if row.outcome == "done":
                journal.done_by[row.worker] += 1
                if row.attempt == 1 and not row.replay_count and is_tick(event):
                    journal.ages_ms[row.age_ms] += 1
    return journal


async def read_books(store: Store) -> Books:
    """Everything beside the journals."""
    shed: set[Id] = set()
    async for rows in audit.entries(store, BRIDGE):
        shed.update(pack(row.event_id) for row in rows)
    return await store.read(partial(_read, shed=frozenset(shed)))


def missed_ids(books: Books) -> list[tuple[Id, Id]]:
    """The missed ranges as packed ids; one without an end reaches as far as ids do."""
    return [
        (pack_if_ulid(after) or bytes(16), pack_if_ulid(before) or pack(LAST))
        for after, before, _ in books.missed
    ]


def percentile(counted: Counter[int], share: float) -> int | None:
    """The smallest value that `share` (0 to 1) of all do not exceed; None where there is none."""
    wanted, passed = share * counted.total(), 0
    for value in sorted(counted):
        passed += counted[value]
        if passed >= wanted:
            return value
    return None


def _read(tx: Tx, shed: frozenset[Id]) -> Books:
    doubled = tx.query(
        "SELECT count(*) FROM (SELECT venue_id FROM positions WHERE venue_id <> ''"
        " GROUP BY venue_id HAVING count(*) > 1) AS twice"
    )
    return Books(
        shed=shed,
        missed=tuple((row.after, row.before, row.count) for row in audit.missed(tx)),
        quarantined=audit.quarantined(tx),
        effects=audit.effects(tx),
        positions=positions.by_state(tx),
        doubled=int(doubled[0][0]),
        archived=archive.counts(tx),
    )
