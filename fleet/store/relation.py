"""Many rows as one value: JSON text, which both databases turn into a relation."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fleet.store.api import Value


def encode(rows: Sequence[Sequence[Value]]) -> str:
    """Rows as JSON text. What no database stores (lone surrogates, NUL) becomes U+FFFD."""
    try:
        encoded = msgspec.json.encode(rows)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode([[clean(value) for value in row] for row in rows])
    if b"\\u0000" in encoded:
        encoded = msgspec.json.encode([[clean(value) for value in row] for row in rows])
    return encoded.decode()


def clean(value: Value) -> Value:
    """A value without what no database stores."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "�")
