"""What an audit asks of the store: pages of ids and a few counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import msgspec

from fleet.store import paper
from fleet.store.api import Store, Tx
from fleet.store.bridge import MissedRange

PAGE = 5_000


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A row of the journal, as far as an audit needs it."""

    event_id: str
    outcome: str
    attempt: int
    worker: str
    replay_count: int
    age_ms: int


_LIST = ", ".join(Entry.__struct_fields__)
_PAGE = f"SELECT {_LIST} FROM journal WHERE service = ? AND event_id > ? ORDER BY event_id LIMIT ?"


def page(tx: Tx, service: str, after: str = "", limit: int = PAGE) -> list[Entry]:
    """The journal rows of a service that follow `after`, by event id; at most `limit`."""
    return [Entry(*row) for row in tx.query(_PAGE, (service, after, limit))]


async def entries(store: Store, service: str, limit: int = PAGE) -> AsyncIterator[list[Entry]]:
    """All journal rows of a service by event id, a page at a time; memory stays bounded."""
    after = ""
    while rows := await store.read(partial(page, service=service, after=after, limit=limit)):
        yield rows
        after = rows[-1].event_id


def outcomes(tx: Tx, service: str) -> dict[str, int]:
    """How many journal rows the service has of each outcome; sheds under `BRIDGE`."""
    sql = "SELECT outcome, count(*) FROM journal WHERE service = ? GROUP BY outcome"
    return dict(tx.query(sql, (service,)))


def effects(tx: Tx) -> dict[str, dict[str, int]]:
    """How many effects there are of each kind in each state; those on paper are a kind apart."""
    found: dict[str, dict[str, int]] = {}
    on_paper = f"substr(mode, 1, {len(paper.MODE)}) = '{paper.MODE}'"
    name = f"CASE WHEN {on_paper} THEN kind || '{paper.ON_PAPER}' ELSE kind END"
    sql = f"SELECT {name}, state, count(*) FROM effects GROUP BY 1, 2 ORDER BY 1, 2"
    for kind, state, count in tx.query(sql):
        found.setdefault(kind, {})[state] = count
    return found


def missed(tx: Tx, source: str | None = None) -> list[MissedRange]:
    """The ranges that a source (or any) could not give again, in order."""
    sql = "SELECT after_id, before_id, at_ms, events FROM missed"
    where, params = (" WHERE source = ?", (source,)) if source is not None else ("", ())
    return [MissedRange(*row) for row in tx.query(f"{sql}{where} ORDER BY after_id", params)]


def quarantined(tx: Tx, source: str | None = None) -> int:
    """How many frames of a source (or of any) could not be read."""
    where, params = (" WHERE source = ?", (source,)) if source is not None else ("", ())
    return int(tx.query(f"SELECT count(*) FROM quarantined{where}", params)[0][0])
