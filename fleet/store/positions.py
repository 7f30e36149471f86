"""The agent's book: at most so many positions, one per pair, each under one effect key."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal, TypeAlias

import msgspec

from fleet.core.errors import StateError
from fleet.store import equity, paper
from fleet.store.api import Tx

PositionState: TypeAlias = Literal["reserved", "open", "closing", "closed", "released"]
Reason: TypeAlias = Literal["limit", "pair_busy", "spent", "late"]


class Position(msgspec.Struct, frozen=True, gc=False):
    """A position of an agent; `key` is the effect key of the order that opens it.

    `ts_ms` is the business time of that order, `asked_ms` when the venue was last asked to open
    it, `closing_ms` when its closing was begun; the other times are when it was written.
    `presumed` is what counts as lost of a closed one while nobody knows what it gained.
    """

    key: str
    agent: str
    pair: str
    direction: str
    size: Decimal
    leverage: Decimal
    ts_ms: int
    state: PositionState = "reserved"
    venue_id: str = ""
    entry_price: Decimal | None = None
    exit_price: Decimal | None = None
    pnl: Decimal | None = None
    opened_ms: int = 0
    closed_ms: int = 0
    asked_ms: int = 0
    closing_ms: int = 0
    presumed: Decimal | None = None


class Reserved(msgspec.Struct, frozen=True, gc=False):
    """The order may go to the venue. `again`: this key was reserved or opened before."""

    position: Position
    again: bool = False


class Refused(msgspec.Struct, frozen=True, gc=False):
    """The order must not go to the venue.

    limit: as many positions as allowed · pair_busy: the pair has one · spent: this key was
    used and is over, or about to be · late: a newer order of the pair is in the book.
    """

    reason: Reason


_COLUMNS = Position.__struct_fields__
_LIST = ", ".join("position_key" if column == "key" else column for column in _COLUMNS)
_SELECT = f"SELECT {_LIST} FROM positions"
_LIVE = "state IN ('reserved', 'open', 'closing')"
_MONEY = frozenset({"size", "leverage", "entry_price", "exit_price", "pnl", "presumed"})


def reserve(tx: Tx, position: Position, max_open: int) -> Reserved | Refused:
    """Take a place in the book before the venue is asked; atomic over all processes."""
    old = get(tx, position.key)
    if old is not None and old.state in ("reserved", "open"):
        return Reserved(old, again=True)
    if old is not None and old.state != "released":
        return Refused("spent")
    reason = _refusal(tx, position, max_open)
    if reason:
        return Refused(reason)
    fresh = msgspec.structs.replace(position, state="reserved")
    tx.execute("DELETE FROM positions WHERE position_key = ?", (position.key,))
    marks = ", ".join("?" * len(_COLUMNS))
    tx.execute(f"INSERT INTO positions ({_LIST}) VALUES ({marks})", _values(fresh))
    return Reserved(fresh)


def opened(tx: Tx, key: str, venue_id: str, entry_price: Decimal | None, now_ms: int) -> None:
    """The venue opened it. Twice is once; nothing happens to one that is closing or closed."""
    tx.execute(
        "UPDATE positions SET state = 'open', venue_id = ?, entry_price = ?, opened_ms = ?"
        " WHERE position_key = ? AND state = 'reserved'",
        (venue_id, _text(entry_price), now_ms, key),
    )
    known(tx, key)


def asked(tx: Tx, key: str, now_ms: int) -> None:
    """The venue is about to be asked for it once more."""
    tx.execute("UPDATE positions SET asked_ms = ? WHERE position_key = ?", (now_ms, key))


def as_found(tx: Tx, key: str, direction: str, size: Decimal, leverage: Decimal) -> None:
    """What the venue has under its key is this, whatever was ordered."""
    tx.execute(
        "UPDATE positions SET direction = ?, size = ?, leverage = ?"
        f" WHERE position_key = ? AND {_LIVE}",
        (direction, _text(size), _text(leverage), key),
    )


def closing(tx: Tx, key: str, now_ms: int) -> bool:
    """An order to close it is about to go out; whether it is (still) closing now."""
    tx.execute(
        "UPDATE positions SET state = 'closing', closing_ms = ?"
        " WHERE position_key = ? AND state = 'open'",
        (now_ms, key),
    )
    return known(tx, key).state == "closing"


def closed(tx: Tx, key: str, pnl: Decimal, exit_price: Decimal | None, now_ms: int) -> None:
    """It is over at the venue: its place is free, its key is spent. Twice is once.

    What it gained counts in the agent's equity. One that was closed in doubt is told so.
    """
    changed = tx.execute(
        "UPDATE positions SET state = 'closed', pnl = ?, exit_price = ?, closed_ms = ?"
        f" WHERE position_key = ? AND {_LIVE}",
        (_text(pnl), _text(exit_price), now_ms, key),
    )
    agent = known(tx, key).agent
    if changed:
        equity.add(tx, agent, pnl, now_ms)
    else:
        told(tx, key, pnl, exit_price, now_ms)


def closed_in_doubt(tx: Tx, key: str, presumed: Decimal, now_ms: int) -> None:
    """It is over at the venue, and nobody knows what it gained. Twice is once.

    Until it is told, or an operator lets the drawdown count anew, `presumed` counts as lost.
    """
    tx.execute(
        "UPDATE positions SET state = 'closed', presumed = ?, closed_ms = ?"
        f" WHERE position_key = ? AND {_LIVE}",
        (_text(presumed), now_ms, key),
    )
    known(tx, key)


def told(tx: Tx, key: str, pnl: Decimal, exit_price: Decimal | None, now_ms: int) -> bool:
    """What a closed one gained is known at last; False where it was known, or is not closed."""
    changed = tx.execute(
        "UPDATE positions SET pnl = ?, exit_price = ?, presumed = NULL"
        " WHERE position_key = ? AND state = 'closed' AND pnl IS NULL",
        (_text(pnl), _text(exit_price), key),
    )
    if changed:
        equity.add(tx, known(tx, key).agent, pnl, now_ms)
    return bool(changed)


def doubtful(tx: Tx, agent: str | None = None) -> list[Position]:
    """Those of which something is presumed, of an agent or of all; the oldest first."""
    whose, params = ("", ()) if agent is None else (" AND agent = ?", (agent,))
    where = f" WHERE presumed IS NOT NULL{whose} ORDER BY closed_ms, position_key"
    return _positions(tx.query(_SELECT + where, params))


def accept(tx: Tx, agent: str) -> None:
    """Presume nothing any more of what is closed; what it gained can still be told."""
    tx.execute(
        "UPDATE positions SET presumed = NULL WHERE agent = ? AND presumed IS NOT NULL", (agent,)
    )


def release(tx: Tx, key: str) -> None:
    """The venue refused it: its place is free, and its key may be reserved again."""
    tx.execute(
        "UPDATE positions SET state = 'released' WHERE position_key = ? AND state = 'reserved'",
        (key,),
    )


def get(tx: Tx, key: str) -> Position | None:
    """The position that was reserved under this effect key."""
    found = _positions(tx.query(f"{_SELECT} WHERE position_key = ?", (key,)))
    return found[0] if found else None


def open_positions(tx: Tx, agent: str) -> list[Position]:
    """What takes a place in the agent's book (reserved, open, closing), oldest order first."""
    where = f" WHERE agent = ? AND {_LIVE} ORDER BY ts_ms, position_key"
    return _positions(tx.query(_SELECT + where, (agent,)))


def by_state(tx: Tx) -> dict[str, int]:
    """How many positions there are in each state; those on paper are counted apart."""
    state = f"CASE WHEN agent LIKE ? THEN state || '{paper.ON_PAPER}' ELSE state END"
    sql = f"SELECT {state}, count(*) FROM positions GROUP BY 1"
    return dict(tx.query(sql, (f"%{paper.BOOK}",)))


def live(tx: Tx) -> list[Position]:
    """What takes a place in any agent's book, oldest order first."""
    return _positions(tx.query(f"{_SELECT} WHERE {_LIVE} ORDER BY ts_ms, position_key"))


def _refusal(tx: Tx, position: Position, max_open: int) -> Reason | None:
    newest = tx.query(
        "SELECT max(ts_ms) FROM positions WHERE agent = ? AND pair = ? AND position_key <> ?"
        " AND state <> 'released'",
        (position.agent, position.pair, position.key),
    )[0][0]
    if newest is not None and newest > position.ts_ms:
        return "late"
    live = open_positions(tx, position.agent)
    if any(other.pair == position.pair for other in live):
        return "pair_busy"
    return "limit" if len(live) >= max_open else None


def known(tx: Tx, key: str) -> Position:
    """The position that was reserved under this effect key. Raises StateError where none was."""
    found = get(tx, key)
    if found is None:
        raise StateError(f"The book has no position under {key}; reserve it first.")
    return found


def _values(position: Position) -> list[str | int | None]:
    return [
        _text(value) if column in _MONEY else value
        for column, value in zip(_COLUMNS, msgspec.structs.astuple(position), strict=True)
    ]


def _positions(rows: list[tuple[Any, ...]]) -> list[Position]:
    return [msgspec.convert(dict(zip(_COLUMNS, row, strict=True)), Position) for row in rows]


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else str(amount)
