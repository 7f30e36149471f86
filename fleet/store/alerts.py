"""Alerts that were raised: one row for each name, key and time window."""

from __future__ import annotations

import msgspec

from fleet.store.api import Tx


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


_COLUMNS = Alert.__struct_fields__
_LIST = ", ".join(_COLUMNS)
PAGE = 100


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
    rows = tx.query(
        f"SELECT {_LIST} FROM alerts WHERE agent = ? ORDER BY at_ms DESC, event_id LIMIT ?",
        (agent, limit),
    )
    return [Alert(*row) for row in rows]
