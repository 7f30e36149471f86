"""The evidence of a dispute: events, what became of them, effects and payments, in one file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec

from agent import records
from agent.world.casefile import subjects
from fleet.core.payloads import EvidenceRequested
from fleet.store import archive, cases, effects, story
from fleet.store.api import Effect, Store, Tx
from fleet.store.archive import Intervention
from fleet.store.cases import Entry

NEWEST: Final = 2_000
"""Events of one case that go into a file; a case with more has its last ones."""

_encode = msgspec.json.Encoder(decimal_format="string").encode


class Evidence(msgspec.Struct, frozen=True):
    """The case of one dispute; `events` in the order in which they were handled."""

    agent: str
    escrow_id: str
    job_id: str
    reason: str
    terms: records.Terms | None
    events: list[dict[str, Any]]
    effects: list[Effect]
    interventions: list[Intervention]

    def has(self, event_id: str) -> bool:
        """Whether this event is in it."""
        return any(event["event_id"] == event_id for event in self.events)


async def gather(store: Store, agent: str, wish: EvidenceRequested) -> Evidence:
    """All that the store knows of a disputed escrow and its job, read in one look."""
    return await store.read(lambda tx: _gathered(tx, agent, wish))


def write_file(folder: Path, name: str, found: Evidence) -> Path:
    """Write it as JSON into `folder`; the absolute path. It is there whole, or not at all.

    Raises OSError where it cannot be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / f"{name}.json").absolute()
    handle, made = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(_encode(found), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        Path(made).replace(path)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise
    return path


def _gathered(tx: Tx, agent: str, wish: EvidenceRequested) -> Evidence:
    entries = _entries(tx, agent, wish)
    bodies = {entry.event_id: msgspec.json.decode(entry.body) for entry in entries}
    keys = [str(body["key"]) for body in bodies.values() if "key" in body]
    names = dict.fromkeys([*bodies, *keys])
    return Evidence(
        agent=agent,
        escrow_id=wish.escrow_id,
        job_id=wish.job_id,
        reason=wish.reason,
        terms=records.terms(tx, agent, wish.job_id) if wish.job_id else None,
        events=[_told(tx, entry, bodies[entry.event_id]) for entry in entries],
        effects=list(effects.find(tx, dict.fromkeys(keys)).values()),
        interventions=[done for name in names for done in archive.interventions(tx, name)],
    )


def _entries(tx: Tx, agent: str, wish: EvidenceRequested) -> list[Entry]:
    found = {
        entry.event_id: entry
        for subject in subjects(wish.job_id, wish.escrow_id)
        for entry in cases.about(tx, agent, subject, NEWEST)
    }
    return sorted(found.values(), key=lambda entry: entry.at_ms)[-NEWEST:]


def _told(tx: Tx, entry: Entry, body: Any) -> dict[str, Any]:
    """An event and the decisions on it, of every service."""
    return {
        "event_id": entry.event_id,
        "type": entry.event_type,
        "handled_ms": entry.at_ms,
        "payload": body,
        "journal": story.journal(tx, entry.event_id),
    }
