"""When each schedule of an agent fired last."""

from __future__ import annotations

from fleet.store.api import Tx


def last(tx: Tx, agent: str) -> dict[str, int]:
    """The time of the last firing of each schedule, in milliseconds since 1970."""
    return dict(tx.query("SELECT name, fired_ms FROM firings WHERE agent = ?", (agent,)))


def note(tx: Tx, agent: str, name: str, fired_ms: int) -> None:
    """Remember a firing; an earlier one than is known changes nothing."""
    tx.execute(
        "INSERT INTO firings (agent, name, fired_ms) VALUES (?, ?, ?)"
        " ON CONFLICT (agent, name) DO UPDATE SET fired_ms = excluded.fired_ms"
        " WHERE firings.fired_ms < excluded.fired_ms",
        (agent, name, fired_ms),
    )
