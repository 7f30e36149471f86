"""Event ids of the stand-in: ULIDs that only ever go up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fleet.core.ulid import ALPHABET, ENTROPY_BYTES, make_ulid

PAIRS: Final = [first + second for first in ALPHABET for second in ALPHABET]
LOW_BITS: Final = 20
LOW_MASK: Final = (1 << LOW_BITS) - 1
TOP_CLEAR: Final = (1 << 79) - 1


class Ulids:
    """A source of strictly increasing ULIDs, also when the clock stands still or goes back.

    `entropy(n)` gives n random bytes, asked for once a millisecond; within a millisecond the
    entropy counts up, as the ULID specification says.
    """

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._ms = -1
        self._count = 0
        self._prefix = ""

    def next(self, now_ms: int) -> tuple[str, int]:
        """The next id and the time in it: `now_ms`, or the last id's where that is later."""
        if now_ms > self._ms:
            self._begin(now_ms)
        else:
            self._count += 1
            if not self._count & LOW_MASK:
                self._carry()
        low = self._count & LOW_MASK
        return self._prefix + PAIRS[low >> 10] + PAIRS[low & 1023], self._ms

    def _begin(self, ms: int) -> None:
        # With the top bit clear, a millisecond would need 2**79 events to run out of ids.
        self._ms = ms
        self._count = int.from_bytes(self._entropy(ENTROPY_BYTES), "big") & TOP_CLEAR
        self._carry()

    def _carry(self) -> None:
        # The last four characters are looked up per id; the 22 before them change rarely.
        entropy = self._count.to_bytes(ENTROPY_BYTES, "big")
        self._prefix = make_ulid(self._ms, entropy)[:22]
