"""Decisions: each signal of a strategy, with what it was made of, and the order it led to."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fleet.store.api import Tx


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A signal, and the order that was asked for; `inputs` is JSON text.

    `event_id` is that of the record, `order_id` that of `order.requested`, `trade_key` its effect
    key; `mode` is what the agent might do at the time. `outcome` is "ordered": what became of the
    order is in the journal and in the effect.
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
    return [Decision(*row) for row in rows]


def newest(tx: Tx, agent: str, limit: int = 100) -> list[Decision]:
    """The last decisions of an agent, newest first."""
    rows = tx.query(
        f"SELECT {_LIST} FROM decisions WHERE agent = ? ORDER BY at_ms DESC, event_id LIMIT ?",
        (agent, limit),
    )
    return [Decision(*row) for row in rows]
