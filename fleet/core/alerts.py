"""Alerts: what a person should know, told once for each time window. Pure."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from fleet.core.events import Event
from fleet.core.payloads import AlertRaised
from fleet.core.ulid import derived_ulid

TYPE: Final = "alert.raised"
WINDOW_MS: Final = 60 * 60 * 1000
MAX_DETAIL: Final = 1000
RUNBOOK: Final = "docs/alerts.md"

Severity: TypeAlias = Literal["info", "warning", "critical"]


class Kind(NamedTuple):
    """What alerts of one name have in common; the name is their anchor in the runbook."""

    severity: Severity
    title: str


KINDS: Final[dict[str, Kind]] = {
    "low_balance": Kind("warning", "The wallet is low; nothing is opened"),
    "escrow_disputed": Kind("critical", "An escrow is in dispute"),
    "job_failed": Kind("warning", "A job failed and nobody takes it over"),
    "terms_unknown": Kind("warning", "A job is done, but nobody here hired for it"),
    "book_differs": Kind("critical", "The book and the venue disagree"),
    "book_repaired": Kind("warning", "The book was repaired after the venue"),
    "close_refused": Kind("critical", "A position stays open: the venue refuses to close it"),
    "result_unknown": Kind("critical", "A position is over and nobody knows what it gained"),
    "venue_away": Kind("warning", "The venue does not answer"),
    "prices_stale": Kind("warning", "No price has come for too long"),
    "mode_down": Kind("warning", "The agent trades less than it should, or not at all"),
    "shutdown": Kind("critical", "The agent shut down: everything is closed, and stays so"),
    "handler_halted": Kind("critical", "A handler is halted: it fails in the same way each time"),
    "memory_high": Kind("critical", "A worker ends: its memory is near the limit"),
    "disk_full": Kind("critical", "A worker ends: the disk of its store is nearly full"),
    "store_away": Kind("critical", "The store cannot be written; nothing is handled"),
}
"""The alerts that the fleet itself raises, each explained in the runbook."""


def alert_event(
    agent: str,
    name: str,
    now_ms: int,
    *,
    key: str = "",
    detail: str = "",
    kind: Kind | None = None,
) -> Event:
    """The event of an alert called `name`, at `now_ms`; a name that is none of KINDS needs a kind.

    Its id is that of its agent, name, key and hour: raised again within the hour it is the same
    event, which every reader's journal knows. Raises KeyError for a name without a kind.
    """
    kind = kind or KINDS[name]
    window = now_ms // WINDOW_MS * WINDOW_MS
    payload = AlertRaised(
        name=name,
        severity=kind.severity,
        title=kind.title,
        detail=detail[:MAX_DETAIL],
        key=key,
        runbook=f"{RUNBOOK}#{name}",
    )
    return Event(
        event_id=derived_ulid(window, f"alert:{agent}:{name}:{key}"),
        type=TYPE,
        agent_id=agent,
        payload=msgspec.to_builtins(payload),
        ts=now_ms,
    )
