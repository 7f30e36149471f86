"""The ledger of effects as operators read it, and their word on what nobody else can know."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal, TypeAlias

import msgspec

from fleet.core.errors import SettingsError
from fleet.store import archive, effects, positions
from fleet.store.again import OvertakenError
from fleet.store.api import Effect, EffectState, Tx
from fleet.store.archive import Intervention
from fleet.store.positions import Position

Ending: TypeAlias = Literal["done", "failed"]
PAGE = 100

_COLUMNS = tuple("effect_key" if name == "key" else name for name in Effect.__struct_fields__)
_LIST = ", ".join(_COLUMNS)


class Account(msgspec.Struct, frozen=True, gc=False):
    """An effect, and what an operator said of it, where no worker has changed it since."""

    effect: Effect
    resolved: Intervention | None = None

    @property
    def is_pending(self) -> bool:
        """Whether it is not done, and nobody has said what became of it."""
        return self.effect.state != "done" and self.resolved is None


def page(
    tx: Tx, *, state: EffectState | None = None, kind: str = "", after: str = "", limit: int = PAGE
) -> list[Account]:
    """The effects of a state and a kind (or of any) that follow `after`, by key."""
    where, params = "effect_key > ?", [after]
    for column, wanted in (("state", state), ("kind", kind)):
        if wanted:
            where, params = f"{where} AND {column} = ?", [*params, wanted]
    sql = f"SELECT {_LIST} FROM effects WHERE {where} ORDER BY effect_key LIMIT ?"
    return _accounts(tx, [Effect(*row) for row in tx.query(sql, (*params, limit))])


def account(tx: Tx, key: str) -> Account | None:
    """The effect with this key."""
    found = effects.get(tx, key)
    return _accounts(tx, [found])[0] if found else None


def _accounts(tx: Tx, found: Sequence[Effect]) -> list[Account]:
    said = archive.last_words(tx, [effect.key for effect in found])
    return [
        Account(effect, word if word is not None and word.at_ms >= effect.at_ms else None)
        for effect in found
        for word in (said.get(effect.key),)
    ]


def resolve(tx: Tx, key: str, ending: Ending, *, note: str, operator: str, now_ms: int) -> Effect:
    """Say what became of an effect; as it is afterwards.

    What is failed gives its place in the book back, and gained nothing. Raises SettingsError, and
    changes nothing, where there is none, it is done (that is a fact), it has this state already, or
    a worker has it in its hands.
    """
    old = effects.get(tx, key)
    if old is None:
        raise SettingsError(f"There is no effect {key}.")
    if old.state in ("done", ending):
        raise SettingsError(f"Effect {key} is {old.state} already; nothing was changed.")
    if old.holder and old.held_until_ms > now_ms:
        seconds = (old.held_until_ms - now_ms + 999) // 1000
        raise SettingsError(f"Effect {key} is in the hands of a worker; wait {seconds} s.")
    error = "" if ending == "done" else f"resolved: {note}"[:500]
    changed = tx.execute(
        "UPDATE effects SET state = ?, error = ?, holder = '', held_until_ms = 0, at_ms = ?"
        " WHERE effect_key = ? AND state = ? AND attempts = ?",
        (ending, error, now_ms, key, old.state, old.attempts),
    )
    if not changed:
        raise OvertakenError
    done = Intervention(now_ms, operator, "resolve", archive.EFFECTS, key, old.state, ending, note)
    archive.note(tx, [done])
    if ending == "failed":
        positions.release(tx, key)
        positions.told(tx, key, Decimal(0), None, now_ms)
    return effects.find(tx, [key])[key]


def settle(tx: Tx, key: str, gained: Decimal, *, note: str, operator: str, now_ms: int) -> Position:
    """Say what the position of an order gained; as it is afterwards.

    Raises SettingsError, and changes nothing, where there is none, it is not closed, or it is
    known what it gained.
    """
    if positions.get(tx, key) is None:
        raise SettingsError(f"The book has no position under {key}.")
    if not positions.told(tx, key, gained, None, now_ms):
        raise SettingsError(
            f"The position under {key} is not over, or it is known what it gained;"
            " nothing was changed."
        )
    said = Intervention(
        now_ms, operator, "settle", archive.EFFECTS, key, "unknown", str(gained), note
    )
    archive.note(tx, [said])
    return positions.known(tx, key)
