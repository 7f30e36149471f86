"""ULIDs: 26 characters, Crockford base 32, sorted by time.

Source: https://github.com/ulid/spec - 48 bits of milliseconds since 1970, then 80 bits that
tell apart what happened in the same millisecond.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PATTERN: Final = r"^[0-7][0-9A-HJKMNP-TV-Z]{25}\Z"
ENTROPY_BYTES: Final = 10
MAX_MS: Final = (1 << 48) - 1

_MATCH = re.compile(PATTERN).match
_VALUE: Final = {character: value for value, character in enumerate(ALPHABET)}


def is_ulid(text: str) -> bool:
    """Whether `text` is a canonical (upper-case) ULID."""
    return _MATCH(text) is not None


def make_ulid(ts_ms: int, entropy: bytes) -> str:
    """The ULID of a time in milliseconds since 1970 and exactly 10 bytes of entropy.

    Raises ValueError where the time does not fit 48 bits or the entropy is not 10 bytes.
    """
    if not 0 <= ts_ms <= MAX_MS:
        raise ValueError(f"a ULID's time is 0 to {MAX_MS} ms, not {ts_ms}")
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"a ULID's entropy is {ENTROPY_BYTES} bytes, not {len(entropy)}")
    number = (ts_ms << 80) | int.from_bytes(entropy, "big")
    return "".join(ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def derived_ulid(ts_ms: int, key: str) -> str:
    """The ULID of a time and the hash of a key: the same for the same arguments, always.

    Raises ValueError where the time does not fit, or the key is not valid Unicode.
    """
    return make_ulid(ts_ms, hashlib.sha256(key.encode()).digest()[:ENTROPY_BYTES])


def ulid_ms(ulid: str) -> int:
    """The time of a valid ULID, in milliseconds since 1970."""
    number = 0
    for character in ulid[:10]:
        number = number << 5 | _VALUE[character]
    return number
