"""The same failure again and again: a pure count."""

from __future__ import annotations


class Streaks:
    """Counts, for each name, how often in a row it failed in the same way.

    `limit` failures with one fingerprint, and no success or other failure between, are a streak;
    0: never.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._runs: dict[str, tuple[str, int]] = {}

    def failed(self, name: str, fingerprint: str) -> bool:
        """Count a failure; whether it completes a streak. Then the count begins anew."""
        before, count = self._runs.get(name, ("", 0))
        count = count + 1 if before == fingerprint else 1
        self._runs[name] = (fingerprint, count)
        if not self._limit or count < self._limit:
            return False
        del self._runs[name]
        return True

    def succeeded(self, name: str) -> None:
        """Forget the failures under a name."""
        if self._runs:
            self._runs.pop(name, None)
