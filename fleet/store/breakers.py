"""Breakers that all processes share: one row each, changed in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from fleet.core.breaker import CLOSED, Breaker, BreakerPolicy, Turn, ask
from fleet.store.api import Tx

Rule: TypeAlias = Callable[[Breaker], Breaker]

_COLUMNS = ", ".join(Breaker.__struct_fields__)


def get(tx: Tx, name: str) -> Breaker:
    """The breaker of this name; closed where nothing ever failed."""
    rows = tx.query(f"SELECT {_COLUMNS} FROM breakers WHERE name = ?", (name,))
    return Breaker(*rows[0]) if rows else CLOSED


def every(tx: Tx) -> dict[str, Breaker]:
    """Every breaker that was ever touched, by name."""
    rows = tx.query(f"SELECT name, {_COLUMNS} FROM breakers ORDER BY name")
    return {name: Breaker(*row) for name, *row in rows}


def take_turn(tx: Tx, name: str, caller: str, policy: BreakerPolicy, now_ms: int) -> Turn:
    """Whether `caller` may go now; of all processes one has the probe."""
    before = get(tx, name)
    turn = ask(before, caller, policy, now_ms)
    if turn.breaker != before:
        _put(tx, name, turn.breaker)
    return turn


def change(tx: Tx, name: str, rule: Rule) -> Breaker:
    """The breaker after `rule`, as it is kept now."""
    before = get(tx, name)
    after = rule(before)
    if after != before:
        _put(tx, name, after)
    return after


def _put(tx: Tx, name: str, breaker: Breaker) -> None:
    tx.execute(
        f"INSERT INTO breakers (name, {_COLUMNS}) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET failures = excluded.failures,"
        " opened_ms = excluded.opened_ms, prober = excluded.prober,"
        " probe_until_ms = excluded.probe_until_ms",
        (name, *msgspec.structs.astuple(breaker)),
    )
