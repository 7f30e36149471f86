"""The contiguous settled prefix: how far the cursor may move."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefix(Generic[T]):
    """Remembers arrivals in order and gives back those before which nothing is unsettled.

    Each arrival is given back exactly once, in order of arrival, after it was settled.
    """

    def __init__(self) -> None:
        self._arrivals: deque[T] = deque()
        self._settled: set[int] = set()
        self._first = 0  # the number of the oldest arrival not given back

    def __len__(self) -> int:
        """How many arrivals were not given back yet."""
        return len(self._arrivals)

    @property
    def first(self) -> T | None:
        """The oldest arrival that was not given back."""
        return self._arrivals[0] if self._arrivals else None

    def arrive(self, item: T) -> int:
        """Remember `item`; the number under which it is settled."""
        self._arrivals.append(item)
        return self._first + len(self._arrivals) - 1

    def settle(self, number: int) -> None:
        """Mark one arrival as settled; a second time changes nothing."""
        if number >= self._first:
            self._settled.add(number)

    def take(self) -> list[T]:
        """The settled arrivals at the front; they are forgotten here."""
        taken: list[T] = []
        while self._first in self._settled:
            self._settled.remove(self._first)
            taken.append(self._arrivals.popleft())
            self._first += 1
        return taken
