"""Positions that exist on paper only: what a venue would have, kept apart from every real book."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from fleet.store.api import Tx

BOOK = "/paper"
"""What the name of a book of paper trading ends with."""
MODE = "paper:"
"""What the mode of an effect on paper begins with."""
ON_PAPER = " on paper"
"""What its kind or state ends with where such things are counted."""


class PaperPosition(msgspec.Struct, frozen=True, gc=False):
    """A position of an agent's paper account; `closed_ms` is 0 while it is open."""

    agent: str
    position_id: str
    order_key: str
    pair: str
    direction: str
    size: Decimal
    leverage: Decimal
    entry_price: Decimal
    opened_ms: int
    exit_price: Decimal | None = None
    pnl: Decimal | None = None
    closed_ms: int = 0


_COLUMNS = PaperPosition.__struct_fields__
_LIST = ", ".join(_COLUMNS)


def put(tx: Tx, position: PaperPosition) -> None:
    """Keep a position, in the place of what is kept under its id."""
    key = (position.agent, position.position_id)
    tx.execute("DELETE FROM paper_positions WHERE agent = ? AND position_id = ?", key)
    marks = ", ".join("?" * len(_COLUMNS))
    row = [
        str(value) if isinstance(value, Decimal) else value
        for value in msgspec.structs.astuple(position)
    ]
    tx.execute(f"INSERT INTO paper_positions ({_LIST}) VALUES ({marks})", row)


def get(tx: Tx, agent: str, position_id: str) -> PaperPosition | None:
    """The position with this id."""
    where = "agent = ? AND position_id = ?"
    found = _positions(tx, where, (agent, position_id))
    return found[0] if found else None


def open_positions(tx: Tx, agent: str) -> list[PaperPosition]:
    """What is open, oldest first."""
    return _positions(tx, "agent = ? AND closed_ms = 0", (agent,))


def _positions(tx: Tx, where: str, params: tuple[Any, ...]) -> list[PaperPosition]:
    rows = tx.query(
        f"SELECT {_LIST} FROM paper_positions WHERE {where} ORDER BY opened_ms, position_id", params
    )
    return [msgspec.convert(dict(zip(_COLUMNS, row, strict=True)), PaperPosition) for row in rows]
