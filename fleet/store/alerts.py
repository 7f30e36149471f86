"""Alerts that were raised: one row for each name, key and time window, until it is resolved."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fleet.core.errors import SettingsError
from fleet.store import archive
from fleet.store.api import Tx
from fleet.store.archive import Intervention


class Alert(msgspec.Struct, frozen=True, gc=False):
    """An alert as it was raised first in its window; `event_id` is that of the window."""

    event_id: str
    agent: str
    name: str
    alert_key: str
    severity: str
    title: str
    detail: str
    runbook: str
    at_ms: int


class Noted(msgspec.Struct, frozen=True, gc=False):
    """An alert, and the operator's word that ended it; None while it is open."""

    alert: Alert
    resolved: Intervention | None = None


class Wanted(msgspec.Struct, frozen=True):
    """Which alerts: open ones, unless `all`; of a name, severity and agent, or of any."""

    name: str = ""
    severity: str = ""
    agent: str = ""
    since_ms: int = 0
    all: bool = False


_COLUMNS = Alert.__struct_fields__
_LIST = ", ".join(_COLUMNS)
PAGE = 100
RESOLVED = (
    "EXISTS (SELECT 1 FROM interventions WHERE interventions.message_id = alerts.event_id"
    f" AND interventions.queue = '{archive.ALERTS}')"
)


def add(tx: Tx, alert: Alert) -> bool:
    """Keep it; whether it is the first of its window."""
    marks = ", ".join("?" * len(_COLUMNS))
    changed = tx.execute(
        f"INSERT INTO alerts ({_LIST}) VALUES ({marks}) ON CONFLICT (event_id) DO NOTHING",
        msgspec.structs.astuple(alert),
    )
    return changed == 1


def get(tx: Tx, event_id: str) -> Alert | None:
    """The alert that this event raised, if it is one."""
    rows = tx.query(f"SELECT {_LIST} FROM alerts WHERE event_id = ?", (event_id,))
    return Alert(*rows[0]) if rows else None


def newest(tx: Tx, agent: str, limit: int = PAGE) -> list[Alert]:
    """The last alerts of an agent, newest first."""
    return [each.alert for each in page(tx, Wanted(agent=agent, all=True), limit)]


def page(tx: Tx, wanted: Wanted, limit: int = PAGE) -> list[Noted]:
    """The newest of these, newest first."""
    where, params = _where(wanted)
    rows = tx.query(
        f"SELECT {_LIST} FROM alerts WHERE {where} ORDER BY at_ms DESC, event_id LIMIT ?",
        (*params, limit),
    )
    found = [Alert(*row) for row in rows]
    words = archive.last_words(tx, [each.event_id for each in found], archive.ALERTS)
    return [Noted(each, words.get(each.event_id)) for each in found]


def open_counts(tx: Tx) -> dict[str, int]:
    """How many are open, by severity."""
    sql = f"SELECT severity, count(*) FROM alerts WHERE NOT {RESOLVED} GROUP BY severity"
    return dict(tx.query(sql))


def resolve(tx: Tx, ids: Sequence[str], *, operator: str, note: str, now_ms: int) -> None:
    """Say that these are over, and why.

    Raises SettingsError, and changes nothing, where one is none, or is over already.
    """
    words = archive.last_words(tx, ids, archive.ALERTS)
    for event_id in ids:
        if event_id in words:
            raise SettingsError(f"Alert {event_id} is resolved already; nothing was changed.")
        if get(tx, event_id) is None:
            raise SettingsError(f"There is no alert {event_id}; nothing was changed.")
    _note(tx, ids, operator, note, now_ms)


def resolve_all(tx: Tx, wanted: Wanted, *, operator: str, note: str, now_ms: int) -> list[str]:
    """Say that all open ones of these are over, and why; their ids."""
    where, params = _where(msgspec.structs.replace(wanted, all=False))
    found = tx.query(f"SELECT event_id FROM alerts WHERE {where} ORDER BY event_id", params)
    ids = [event_id for (event_id,) in found]
    _note(tx, ids, operator, note, now_ms)
    return ids


def _where(wanted: Wanted) -> tuple[str, list[str | int]]:
    parts = ["at_ms >= ?"]
    params: list[str | int] = [wanted.since_ms]
    for column in ("name", "severity", "agent"):
        if value := getattr(wanted, column):
            parts.append(f"{column} = ?")
            params.append(value)
    if not wanted.all:
        parts.append(f"NOT {RESOLVED}")
    return " AND ".join(parts), params


def _note(tx: Tx, ids: Sequence[str], operator: str, note: str, now_ms: int) -> None:
    done = [
        Intervention(now_ms, operator, "resolve", archive.ALERTS, each, "open", "resolved", note)
        for each in dict.fromkeys(ids)
    ]
    archive.note(tx, done)
