"""Effects: one row for each thing done to the world, reserved before it is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from fleet.store.again import OvertakenError
from fleet.store.api import Candidate, Claim, Effect, EffectResult, Standing, Tx

_COLUMNS = Effect.__struct_fields__
_NAMES = {"key": "effect_key"}
_LIST = ", ".join(_NAMES.get(column, column) for column in _COLUMNS)
_SELECT = "SELECT " + ", ".join(f"effects.{_NAMES.get(name, name)}" for name in _COLUMNS)
_ANSWER = tuple(_NAMES.get(name, name) for name in _COLUMNS)
_LOOKUP = f"{_SELECT} FROM rows CROSS JOIN effects WHERE effects.effect_key = rows.effect_key"
# Attempts grow by one with each reservation: whoever lost a race changes no row.
_RESERVE = (
    f"INSERT INTO effects ({_LIST}) SELECT {_LIST} FROM rows WHERE true"
    " ON CONFLICT (effect_key) DO UPDATE SET state = excluded.state, holder = excluded.holder,"
    " held_until_ms = excluded.held_until_ms, attempts = excluded.attempts,"
    " replay_count = excluded.replay_count, detail = excluded.detail, at_ms = excluded.at_ms,"
    " result = excluded.result, error = excluded.error"
    " WHERE effects.attempts = excluded.attempts - 1"
)
_RESULT = ("effect_key", "state", "result", "error", "released", "holder", "mode", "at_ms")
_SETTLE = (
    "UPDATE effects SET state = rows.state,"
    " result = CASE WHEN rows.result = '' THEN effects.result ELSE rows.result END,"
    " error = rows.error, at_ms = rows.at_ms,"
    " mode = CASE WHEN rows.mode = '' THEN effects.mode ELSE rows.mode END,"
    " holder = CASE WHEN rows.released = 1 THEN '' ELSE effects.holder END,"
    " held_until_ms = CASE WHEN rows.released = 1 THEN 0 ELSE effects.held_until_ms END"
    " FROM rows WHERE effects.effect_key = rows.effect_key AND effects.state <> 'done'"
    " AND (rows.state = 'done' OR rows.holder = '' OR rows.holder = effects.holder)"
)
_REMOVE = (
    "DELETE FROM effects WHERE state <> 'done' AND EXISTS (SELECT 1 FROM rows"
    " WHERE rows.effect_key = effects.effect_key"
    " AND (rows.holder = '' OR rows.holder = effects.holder))"
)


def get(tx: Tx, key: str) -> Effect | None:
    """The effect with this key."""
    return find(tx, [key]).get(key)


def find(tx: Tx, keys: Iterable[str]) -> dict[str, Effect]:
    """The effects that exist under these keys."""
    found = tx.lookup(("effect_key",), [(key,) for key in keys], _LOOKUP, _ANSWER)
    return {row[0]: Effect(*row) for row in found}


def claim(tx: Tx, candidates: Sequence[Candidate], now_ms: int) -> list[Standing]:
    """Reserve the effect of each candidate (which nobody has seen) where it is to be had."""
    wanted = {candidate.effect.key for candidate in candidates if candidate.effect}
    known = find(tx, wanted)
    taken: dict[str, Effect] = {}
    standings = [_claim(candidate, known, taken, now_ms) for candidate in candidates]
    _reserve(tx, taken.values())
    return standings


def settle(tx: Tx, results: Iterable[tuple[EffectResult, int]]) -> None:
    """Write results, each with its time in milliseconds; what is done stays as it is."""
    # Of two results for one key in a batch the statement could take either: the later one
    # counts, and done counts most.
    last: dict[str, tuple[EffectResult, int]] = {}
    for result, at_ms in results:
        if result.key not in last or last[result.key][0].state != "done":
            last[result.key] = (result, at_ms)
    gone = [(key, entry[0].holder) for key, entry in last.items() if entry[0].state == "none"]
    if gone:
        tx.bulk(("effect_key", "holder"), gone, _REMOVE)
    rest = [_result(*entry) for entry in last.values() if entry[0].state != "none"]
    if rest:
        tx.bulk(_RESULT, rest, _SETTLE)


def _claim(
    candidate: Candidate, known: dict[str, Effect], taken: dict[str, Effect], now_ms: int
) -> Standing:
    wish = candidate.effect
    if wish is None:
        return Standing()
    old = known.get(wish.key)
    if wish.key in taken:
        return Standing(effect=taken[wish.key], held=True)
    if old is not None and not _to_be_had(old, candidate.replay_count):
        return Standing(effect=old)
    if old is not None and _held(old, wish, now_ms):
        return Standing(effect=old, held=True)
    # Reserved by nobody: an attempt gave it back and said that the world was not touched.
    untouched = old is not None and old.state == "reserved" and not old.holder
    fresh = old is None or old.state == "failed" or untouched
    taken[wish.key] = new = _reserved(old, wish, candidate.replay_count, now_ms, fresh=fresh)
    return Standing(effect=new if fresh else old, fresh=fresh)


def _to_be_had(old: Effect, replay_count: int) -> bool:
    if old.state == "failed":
        return replay_count > old.replay_count
    return old.state != "done"


def _held(old: Effect, wish: Claim, now_ms: int) -> bool:
    return old.holder not in ("", wish.holder) and old.held_until_ms > now_ms


def _reserved(
    old: Effect | None, wish: Claim, replay_count: int, now_ms: int, *, fresh: bool
) -> Effect:
    """The row as this claim leaves it; a fresh one forgets the failure before it."""
    return Effect(
        key=wish.key,
        kind=wish.kind,
        state="reserved" if old is None or fresh else old.state,
        holder=wish.holder,
        held_until_ms=wish.held_until_ms,
        attempts=1 if old is None else old.attempts + 1,
        replay_count=replay_count if old is None or fresh else old.replay_count,
        detail=wish.detail if old is None or fresh else old.detail,
        result="" if old is None or fresh else old.result,
        error="" if old is None or fresh else old.error,
        at_ms=now_ms,
        first_ms=now_ms if old is None else old.first_ms,
        mode="" if old is None else old.mode,
    )


def _reserve(tx: Tx, effects: Iterable[Effect]) -> None:
    rows = [msgspec.structs.astuple(effect) for effect in effects]
    if rows and tx.bulk(_ANSWER, rows, _RESERVE) != len(rows):
        raise OvertakenError


def _result(result: EffectResult, at_ms: int) -> tuple[str | int, ...]:
    return (
        result.key,
        result.state,
        result.result,
        result.error,
        int(result.release),
        result.holder,
        result.mode,
        at_ms,
    )
