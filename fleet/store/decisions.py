"""Decisions: each signal of a strategy, with what it was made of, and the order it led to."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fleet.store import effects, positions, story
from fleet.store.api import Tx
from fleet.store.story import Row


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A signal, and the order that was asked for; `inputs` is JSON text.

    `event_id` is that of the record, `order_id` that of `order.requested`, `trade_key` its effect
    key; `mode` is what the agent might do at the time. `outcome` is written as "ordered", and read
    as what became of the order until now.
    """

    event_id: str
    agent: str
    pair: str
    direction: str
    strategy: str
    trade_key: str
    mode: str
    outcome: str
    inputs: str
    ts_ms: int
    at_ms: int
    order_id: str


_COLUMNS = Decision.__struct_fields__
_LIST = ", ".join(_COLUMNS)


def add(tx: Tx, decision: Decision) -> None:
    """Keep it; the same one again changes nothing."""
    marks = ", ".join("?" * len(_COLUMNS))
    tx.execute(
        f"INSERT INTO decisions ({_LIST}) VALUES ({marks}) ON CONFLICT (event_id) DO NOTHING",
        msgspec.structs.astuple(decision),
    )


def of_keys(tx: Tx, keys: Iterable[str]) -> list[Decision]:
    """The decisions for orders under these effect keys, in the order of time."""
    wanted = list(dict.fromkeys(keys))
    if not wanted:
        return []
    marks = ", ".join("?" * len(wanted))
    rows = tx.query(
        f"SELECT {_LIST} FROM decisions WHERE trade_key IN ({marks}) ORDER BY ts_ms, event_id",
        wanted,
    )
    return [_read(tx, Decision(*row)) for row in rows]


def newest(tx: Tx, agent: str, limit: int = 100) -> list[Decision]:
    """The last decisions of an agent, newest first."""
    rows = tx.query(
        f"SELECT {_LIST} FROM decisions WHERE agent = ? ORDER BY at_ms DESC, event_id LIMIT ?",
        (agent, limit),
    )
    return [_read(tx, Decision(*row)) for row in rows]


def _read(tx: Tx, decision: Decision) -> Decision:
    return msgspec.structs.replace(decision, outcome=_outcome(tx, decision))


def _outcome(tx: Tx, decision: Decision) -> str:
    """What became of the order: by its journal row, its effect and its place in the book."""
    effect = effects.get(tx, decision.trade_key)
    end = _end(tx, decision)
    if end is not None and end.outcome in ("skipped", "expired"):
        return f"{end.outcome}: {end.reason}"
    if effect is not None and effect.state == "done":
        return _opened(tx, decision)
    if effect is not None and effect.state == "unknown":
        return f"unknown: {effect.error}"
    if end is not None and end.outcome == "failed":
        kind, _, reason = end.reason.partition(": ")
        return f"refused: {reason}" if kind == "RefusedError" else f"failed: {end.reason}"
    if effect is not None and effect.state == "failed":
        return f"failed: {effect.error}"
    return "waiting" if effect is None else "under way"


def _end(tx: Tx, decision: Decision) -> Row | None:
    """The order's row in the service that recorded the signal: others may hear of orders too."""
    services = {row.service for row in story.journal(tx, decision.event_id)}
    rows = story.journal(tx, decision.order_id)
    return next((row for row in rows if row.service in services), None)


def _opened(tx: Tx, decision: Decision) -> str:
    made = positions.get(tx, decision.trade_key)
    if made is None or not made.venue_id:
        return "opened"
    if made.state != "closed":
        return f"opened as {made.venue_id}"
    gain = "an unknown gain" if made.pnl is None else f"{made.pnl} USDC"
    return f"opened as {made.venue_id}, closed with {gain}"
