"""Facts: the latest that events have told under a name; a late event undoes nothing newer."""

from __future__ import annotations

import msgspec

from fleet.store.api import Tx


class Fact(msgspec.Struct, frozen=True, gc=False):
    """What the event `event_id` told under `name`; `value` is JSON text."""

    name: str
    value: str
    event_id: str


_SELECT = "SELECT name, value, event_id FROM facts"


def put(tx: Tx, fact: Fact) -> bool:
    """Keep `fact` unless one of the same or a newer event is known; whether it was kept."""
    # Event ids are ULIDs: their order as text is the order of time.
    changed = tx.execute(
        "INSERT INTO facts (name, value, event_id) VALUES (?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value, event_id = excluded.event_id"
        " WHERE facts.event_id < excluded.event_id",
        (fact.name, fact.value, fact.event_id),
    )
    return changed == 1


def keep(tx: Tx, fact: Fact) -> None:
    """Keep `fact` in place of whatever is known: for what grows, whichever event tells first."""
    tx.execute(
        "INSERT INTO facts (name, value, event_id) VALUES (?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value, event_id = excluded.event_id",
        (fact.name, fact.value, fact.event_id),
    )


def get(tx: Tx, name: str) -> Fact | None:
    """The latest fact under a name."""
    found = tx.query(f"{_SELECT} WHERE name = ?", (name,))
    return Fact(*found[0]) if found else None


def under(tx: Tx, prefix: str) -> list[Fact]:
    """Every fact whose name begins with `prefix`, in the order of names."""
    rows = tx.query(f"{_SELECT} WHERE substr(name, 1, ?) = ? ORDER BY name", (len(prefix), prefix))
    return [Fact(*row) for row in rows]
