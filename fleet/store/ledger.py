"""The ledger of effects as operators read it, and their word on what nobody else can know."""

from __future__ import annotations

from typing import Literal, TypeAlias

from fleet.core.errors import SettingsError
from fleet.store import archive, effects
from fleet.store.api import Effect, EffectState, Tx
from fleet.store.archive import Intervention

Ending: TypeAlias = Literal["done", "failed"]
PAGE = 100

_COLUMNS = tuple("effect_key" if name == "key" else name for name in Effect.__struct_fields__)
_LIST = ", ".join(_COLUMNS)


def page(
    tx: Tx, *, state: EffectState | None = None, kind: str = "", after: str = "", limit: int = PAGE
) -> list[Effect]:
    """The effects of a state and a kind (or of any) that follow `after`, by key."""
    where, params = "effect_key > ?", [after]
    for column, wanted in (("state", state), ("kind", kind)):
        if wanted:
            where, params = f"{where} AND {column} = ?", [*params, wanted]
    sql = f"SELECT {_LIST} FROM effects WHERE {where} ORDER BY effect_key LIMIT ?"
    return [Effect(*row) for row in tx.query(sql, (*params, limit))]


def resolve(tx: Tx, key: str, ending: Ending, *, note: str, operator: str, now_ms: int) -> Effect:
    """Say what became of an effect; as it is afterwards.

    Raises SettingsError, and changes nothing, where there is none, it is done (that is a fact),
    it has this state already, or a worker has it in its hands.
    """
    old = effects.get(tx, key)
    if old is None:
        raise SettingsError(f"There is no effect {key}.")
    if old.state in ("done", ending):
        raise SettingsError(f"Effect {key} is {old.state} already; nothing was changed.")
    if old.holder and old.held_until_ms > now_ms:
        seconds = (old.held_until_ms - now_ms + 999) // 1000
        raise SettingsError(f"Effect {key} is in the hands of a worker; wait {seconds} s.")
    tx.execute(
        "UPDATE effects SET state = ?, error = ?, holder = '', held_until_ms = 0, at_ms = ?"
        " WHERE effect_key = ?",
        (ending, "" if ending == "done" else f"resolved: {note}"[:500], now_ms, key),
    )
    done = Intervention(now_ms, operator, "resolve", "effects", key, old.state, ending, note)
    archive.note(tx, [done])
    return effects.find(tx, [key])[key]
