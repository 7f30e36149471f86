"""The independent witness: what was emitted, and what was done to the world."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec

from fleet.core.ulid import ulid_ms

ID_LENGTH: Final = 26


class Effect(msgspec.Struct, frozen=True):
    """Something done to the world, or asked for again; `at_ms` is the stand-in's own clock."""

    kind: str
    key: str
    at_ms: int
    position_id: str | None = None
    pair: str | None = None
    direction: str | None = None


class Ledger:
    """Every event emitted, every effect accepted, every duplicate answered; nothing is dropped.

    An event takes 28 bytes here: its id and the number of its type.
    """

    def __init__(self) -> None:
        self._ids = bytearray()
        self._types = array("H")
        self._numbers: dict[str, int] = {}
        self._effects: list[Effect] = []
        self._duplicates: list[Effect] = []
        self._executions: Counter[tuple[str, str]] = Counter()
        self._by_kind: Counter[str] = Counter()

    def emitted(self, event_id: str, event_type: str) -> None:
        """Note an event; its time is the one in its id."""
        self._ids += event_id.encode()
        self._types.append(self._numbers.setdefault(event_type, len(self._numbers)))

    def accepted(self, effect: Effect) -> None:
        """Note an effect that was executed."""
        self._effects.append(effect)
        self._executions[effect.kind, effect.key] += 1
        self._by_kind[effect.kind] += 1

    def answered_again(self, effect: Effect) -> None:
        """Note a request that was answered with the result of an earlier one."""
        self._duplicates.append(effect)

    def event_lines(self, size: int = 2000) -> Iterator[bytes]:
        """Every event so far as JSON lines {"id","type","ts"}, up to `size` lines a piece."""
        types, end = list(self._numbers), len(self._types)
        for start in range(0, end, size):
            yield "".join(
                self._line(types, index) for index in range(start, min(start + size, end))
            ).encode()

    def _line(self, types: list[str], index: int) -> str:
        event_id = self._ids[index * ID_LENGTH : (index + 1) * ID_LENGTH].decode()
        kind = types[self._types[index]]
        return f'{{"id":"{event_id}","type":"{kind}","ts":{ulid_ms(event_id)}}}\n'

    def effect_lines(self) -> Iterator[bytes]:
        """Every effect accepted so far, one JSON line each."""
        return _lines(list(self._effects))

    def duplicate_lines(self) -> Iterator[bytes]:
        """Every duplicate answered so far, one JSON line each."""
        return _lines(list(self._duplicates))

    def summary(self) -> dict[str, object]:
        """The counts of all this."""
        counts = Counter(self._types)
        return {
            "emitted": len(self._types),
            "by_type": {kind: counts[number] for kind, number in self._numbers.items()},
            "effects": len(self._effects),
            "opened": self._by_kind["open"],
            "closed": self._by_kind["close"],
            "duplicates_answered": len(self._duplicates),
            "keys_executed_twice": sum(times > 1 for times in self._executions.values()),
        }


def _lines(effects: list[Effect]) -> Iterator[bytes]:
    return (msgspec.json.encode(effect) + b"\n" for effect in effects)
