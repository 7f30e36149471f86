"""The tables, and how an older store becomes a newer one.

`{keyed}` and `{serial}` are what SQLite and PostgreSQL spell differently.
"""

from __future__ import annotations

import re
from typing import Final

from fleet.core.errors import StoreError

_FIRST: Final = (
    """CREATE TABLE journal (
        service TEXT NOT NULL, event_id TEXT NOT NULL, outcome TEXT NOT NULL,
        attempt BIGINT NOT NULL, worker TEXT NOT NULL, handler TEXT NOT NULL,
        reason TEXT NOT NULL, replay_count BIGINT NOT NULL, at_ms BIGINT NOT NULL,
        age_ms BIGINT NOT NULL, PRIMARY KEY (service, event_id)){keyed}""",
    """CREATE TABLE starts (
        service TEXT NOT NULL, event_id TEXT NOT NULL, starts BIGINT NOT NULL,
        worker TEXT NOT NULL, at_ms BIGINT NOT NULL, PRIMARY KEY (service, event_id)){keyed}""",
    """CREATE TABLE effects (
        effect_key TEXT PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL,
        holder TEXT NOT NULL, held_until_ms BIGINT NOT NULL, attempts BIGINT NOT NULL,
        replay_count BIGINT NOT NULL, detail TEXT NOT NULL, result TEXT NOT NULL,
        error TEXT NOT NULL, at_ms BIGINT NOT NULL){keyed}""",
    """CREATE TABLE lanes (
        service TEXT NOT NULL, lane TEXT NOT NULL, owner TEXT NOT NULL,
        epoch BIGINT NOT NULL, PRIMARY KEY (service, lane)){keyed}""",
    """CREATE TABLE lane_states (
        service TEXT NOT NULL, lane TEXT NOT NULL, state_key TEXT NOT NULL,
        seq BIGINT NOT NULL, body TEXT NOT NULL, at_ms BIGINT NOT NULL,
        PRIMARY KEY (service, lane, state_key))""",
    """CREATE TABLE leases (
        name TEXT PRIMARY KEY, holder TEXT NOT NULL, epoch BIGINT NOT NULL,
        expires_at_ms BIGINT NOT NULL)""",
    """CREATE TABLE cursors (
        source TEXT PRIMARY KEY, cursor_value TEXT NOT NULL, epoch BIGINT NOT NULL,
        at_ms BIGINT NOT NULL)""",
    """CREATE TABLE missed (
        source TEXT NOT NULL, after_id TEXT NOT NULL, before_id TEXT NOT NULL,
        at_ms BIGINT NOT NULL, events BIGINT, PRIMARY KEY (source, after_id, before_id))""",
    """CREATE TABLE quarantined (
        id {serial}, source TEXT NOT NULL, cursor_value TEXT NOT NULL, reason TEXT NOT NULL,
        sha256 TEXT NOT NULL, at_ms BIGINT NOT NULL)""",
    """CREATE TABLE bridge_counts (
        source TEXT NOT NULL, name TEXT NOT NULL, total BIGINT NOT NULL,
        PRIMARY KEY (source, name))""",
    """CREATE TABLE bindings (
        service TEXT NOT NULL, pattern TEXT NOT NULL, at_ms BIGINT NOT NULL,
        PRIMARY KEY (service, pattern))""",
    """CREATE TABLE positions (
        position_key TEXT PRIMARY KEY, agent TEXT NOT NULL, pair TEXT NOT NULL,
        direction TEXT NOT NULL, size TEXT NOT NULL, leverage TEXT NOT NULL,
        ts_ms BIGINT NOT NULL, state TEXT NOT NULL, venue_id TEXT NOT NULL,
        entry_price TEXT, exit_price TEXT, pnl TEXT, opened_ms BIGINT NOT NULL,
        closed_ms BIGINT NOT NULL)""",
    """CREATE UNIQUE INDEX positions_live ON positions (agent, pair)
        WHERE state IN ('reserved', 'open', 'closing')""",
    "CREATE INDEX positions_newest ON positions (agent, pair, ts_ms)",
)

_FACTS: Final = (
    """CREATE TABLE facts (
        name TEXT PRIMARY KEY, value TEXT NOT NULL, event_id TEXT NOT NULL){keyed}""",
)

_OPERATORS: Final = (
    """CREATE TABLE archive (
        kind TEXT NOT NULL, queue TEXT NOT NULL, message_id TEXT NOT NULL, digest TEXT NOT NULL,
        replays BIGINT NOT NULL, event_type TEXT NOT NULL, headers TEXT NOT NULL,
        body TEXT NOT NULL, note TEXT NOT NULL, operator TEXT NOT NULL, at_ms BIGINT NOT NULL,
        restored_ms BIGINT NOT NULL, PRIMARY KEY (kind, queue, message_id, digest, replays))""",
    "CREATE INDEX archive_newest ON archive (kind, restored_ms, at_ms)",
    """CREATE TABLE interventions (
        id {serial}, at_ms BIGINT NOT NULL, operator TEXT NOT NULL, action TEXT NOT NULL,
        queue TEXT NOT NULL, message_id TEXT NOT NULL, was TEXT NOT NULL, became TEXT NOT NULL,
        note TEXT NOT NULL)""",
    "CREATE INDEX interventions_of ON interventions (message_id)",
    "CREATE INDEX archive_of ON archive (message_id)",
    "CREATE INDEX journal_failed ON journal (service, at_ms) WHERE outcome = 'failed'",
)

_CONTROL: Final = (
    """CREATE TABLE replicas (
        kind TEXT NOT NULL, name TEXT NOT NULL, instance TEXT NOT NULL, service TEXT NOT NULL,
        host TEXT NOT NULL, pid BIGINT NOT NULL, version TEXT NOT NULL,
        started_ms BIGINT NOT NULL, at_ms BIGINT NOT NULL, pulse TEXT NOT NULL,
        PRIMARY KEY (kind, name))""",
    """CREATE TABLE pauses (
        service TEXT NOT NULL, pattern TEXT NOT NULL, note TEXT NOT NULL,
        operator TEXT NOT NULL, at_ms BIGINT NOT NULL, PRIMARY KEY (service, pattern))""",
    """CREATE TABLE halts (
        service TEXT NOT NULL, handler TEXT NOT NULL, fingerprint TEXT NOT NULL,
        reason TEXT NOT NULL, worker TEXT NOT NULL, agent TEXT NOT NULL, at_ms BIGINT NOT NULL,
        told BIGINT NOT NULL, PRIMARY KEY (service, handler))""",
)

_FIRST_TIMES: Final = ("ALTER TABLE effects ADD COLUMN first_ms BIGINT NOT NULL DEFAULT 0",)

_WORLD: Final = (
    """CREATE TABLE cases (
        agent TEXT NOT NULL, subject TEXT NOT NULL, event_id TEXT NOT NULL,
        event_type TEXT NOT NULL, body TEXT NOT NULL, at_ms BIGINT NOT NULL,
        PRIMARY KEY (agent, subject, event_id)){keyed}""",
    """CREATE TABLE alerts (
        event_id TEXT PRIMARY KEY, agent TEXT NOT NULL, name TEXT NOT NULL,
        alert_key TEXT NOT NULL, severity TEXT NOT NULL, title TEXT NOT NULL,
        detail TEXT NOT NULL, runbook TEXT NOT NULL, at_ms BIGINT NOT NULL){keyed}""",
    "CREATE INDEX alerts_newest ON alerts (agent, at_ms)",
    """CREATE TABLE firings (
        agent TEXT NOT NULL, name TEXT NOT NULL, fired_ms BIGINT NOT NULL,
        PRIMARY KEY (agent, name))""",
    """CREATE TABLE decisions (
        event_id TEXT PRIMARY KEY, agent TEXT NOT NULL, pair TEXT NOT NULL,
        direction TEXT NOT NULL, strategy TEXT NOT NULL, trade_key TEXT NOT NULL,
        mode TEXT NOT NULL, outcome TEXT NOT NULL, inputs TEXT NOT NULL,
        ts_ms BIGINT NOT NULL, at_ms BIGINT NOT NULL){keyed}""",
    "CREATE INDEX decisions_of ON decisions (trade_key)",
    "CREATE INDEX decisions_newest ON decisions (agent, at_ms)",
)

_AGENT: Final = (
    """CREATE TABLE breakers (
        name TEXT PRIMARY KEY, failures BIGINT NOT NULL, opened_ms BIGINT NOT NULL,
        prober TEXT NOT NULL, probe_until_ms BIGINT NOT NULL){keyed}""",
    """CREATE TABLE checkpoints (
        name TEXT NOT NULL, seq BIGINT NOT NULL, body TEXT NOT NULL, checksum TEXT NOT NULL,
        at_ms BIGINT NOT NULL, PRIMARY KEY (name, seq)){keyed}""",
    """CREATE TABLE equity (
        agent TEXT PRIMARY KEY, realised TEXT NOT NULL, peak TEXT NOT NULL,
        at_ms BIGINT NOT NULL){keyed}""",
    """CREATE TABLE paper_positions (
        agent TEXT NOT NULL, position_id TEXT NOT NULL, order_key TEXT NOT NULL,
        pair TEXT NOT NULL, direction TEXT NOT NULL, size TEXT NOT NULL, leverage TEXT NOT NULL,
        entry_price TEXT NOT NULL, opened_ms BIGINT NOT NULL, exit_price TEXT, pnl TEXT,
        closed_ms BIGINT NOT NULL, PRIMARY KEY (agent, position_id)){keyed}""",
    "ALTER TABLE effects ADD COLUMN mode TEXT NOT NULL DEFAULT ''",
)

_ORDERS: Final = ("ALTER TABLE decisions ADD COLUMN order_id TEXT NOT NULL DEFAULT ''",)

_LANE_MOVES: Final = (
    """CREATE TABLE lane_moves (
        service TEXT PRIMARY KEY, step TEXT NOT NULL, partitions BIGINT NOT NULL,
        at_ms BIGINT NOT NULL)""",
)

_ASKED: Final = ("ALTER TABLE positions ADD COLUMN asked_ms BIGINT NOT NULL DEFAULT 0",)

_DOUBTS: Final = (
    "ALTER TABLE positions ADD COLUMN closing_ms BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE positions ADD COLUMN presumed TEXT",
    "CREATE INDEX positions_doubtful ON positions (agent) WHERE presumed IS NOT NULL",
)

MIGRATIONS: Final = (
    _FIRST,
    _FACTS,
    _OPERATORS,
    _CONTROL,
    _FIRST_TIMES,
    _WORLD,
    _AGENT,
    _ORDERS,
    _LANE_MOVES,
    _ASKED,
    _DOUBTS,
)
"""What leads from version n to n + 1, for n = 0, 1, …: append, never edit."""

VERSION: Final = len(MIGRATIONS)


def statements(version: int, *, keyed: str, serial: str) -> list[str]:
    """What makes a store of `version` (0: empty) one of `VERSION`."""
    return [
        statement.format(keyed=keyed, serial=serial)
        for migration in MIGRATIONS[version:VERSION]
        for statement in migration
    ]


def tables(version: int = VERSION) -> frozenset[str]:
    """The names of all tables that a store of `version` has."""
    steps = MIGRATIONS[:version]
    made = (re.match(r"CREATE TABLE (\w+)", each) for migration in steps for each in migration)
    return frozenset(found[1] for found in made if found)


def check(version: int, place: str) -> None:
    """Raise StoreError where a schema of this version (0: none) at `place` is not ours to use."""
    if not version:
        raise nothing_at(place)
    if version > VERSION:
        raise StoreError(
            f"The store at {place} has schema {version}, this fleet knows up to {VERSION};"
            " upgrade the fleet or set STORE_URL to another store."
        )


def nothing_at(place: str) -> StoreError:
    """That a store was expected at `place`."""
    return StoreError(
        f"There is no store at {place}; set STORE_URL to the one that the bridge and the workers"
        " use."
    )
