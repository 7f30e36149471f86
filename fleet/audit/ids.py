"""Event ids in sixteen bytes each, so that a million of them fit in memory."""

from __future__ import annotations

from typing import Final, TypeAlias

from fleet.core.ulid import ALPHABET, is_ulid

Id: TypeAlias = bytes
"""A ULID as the 128-bit number it is, big end first: sorted like the text."""

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuv"
_TO_DIGITS: Final = str.maketrans(ALPHABET, _DIGITS)


def pack(ulid: str) -> Id:
    """The sixteen bytes of a valid ULID."""
    return int(ulid.translate(_TO_DIGITS), 32).to_bytes(16, "big")


def unpack(event: Id) -> str:
    """The ULID of sixteen bytes."""
    number = int.from_bytes(event, "big")
    return "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def pack_if_ulid(text: object) -> Id | None:
    """The sixteen bytes of what came from outside; None where it is no ULID."""
    return pack(text) if isinstance(text, str) and is_ulid(text) else None
