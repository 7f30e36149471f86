"""The body of a request, as a user writes it: JSON with places for values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, TypeAlias

import msgspec

NAMES: Final = frozenset({"agent", "recipient", "amount", "job", "escrow", "key"})
Value: TypeAlias = str | Decimal


class Template:
    """A JSON object in which a text "{name}", and nothing beside it, stands for a value.

    Values go in after the text was parsed, so that none of them can change its form; Decimals
    become numbers, digit for digit. Raises ValueError where it is no object, or for a name that
    is none of agent, recipient, amount, job, escrow, key.
    """

    def __init__(self, text: str) -> None:
        try:
            self._body = msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise ValueError("write a JSON object") from None
        self.fill(dict.fromkeys(NAMES, ""))

    def fill(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """The body with each place filled; a name without a value is an empty text."""
        return {name: _filled(part, values) for name, part in self._body.items()}


def _filled(part: Any, values: Mapping[str, Value]) -> Any:
    if isinstance(part, dict):
        return {name: _filled(inner, values) for name, inner in part.items()}
    if isinstance(part, list):
        return [_filled(inner, values) for inner in part]
    if not (isinstance(part, str) and part.startswith("{") and part.endswith("}")):
        return part
    name = part[1:-1]
    if name not in NAMES:
        raise ValueError(f"a place is one of {', '.join(sorted(NAMES))}")
    return values.get(name, "")
