"""Delays between attempts to reconnect."""

from __future__ import annotations

from collections.abc import Callable, Iterator

Uniform = Callable[[float, float], float]
"""Draws a float between two bounds, as `random.Random.uniform` does."""


def backoff(uniform: Uniform, *, first: float = 1.0, cap: float = 60.0) -> Iterator[float]:
    """Endless delays in seconds: doubling from `first` to `cap`, each drawn from its upper half.

    The caller sleeps, and starts a new generator only once the connection has proved itself by a
    first message: a server that accepts and then drops would otherwise be hammered.
    """
    delay = first
    while True:
        yield uniform(delay / 2, delay)
        delay = min(cap, delay * 2)
