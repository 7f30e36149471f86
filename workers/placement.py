"""How lanes spread over replicas that know nothing of each other: pure rules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

SPREAD_S: Final = 2.0
_TOP: Final = 1 << 24


def rank(worker: str, lane: str) -> int:
    """How much `worker` wants `lane`, 0 to 2^24 - 1.

    Rendezvous hashing (Thaler and Ravishankar, 1998): of all workers the one with the highest
    rank has the lane, and when it goes only its own lanes move.
    """
    return int.from_bytes(hashlib.sha256(f"{worker}\n{lane}".encode()).digest()[:3], "big")


def best(workers: Iterable[str], lane: str) -> str:
    """Which of these should have `lane`; all who ask about the same workers agree."""
    return max(workers, key=lambda worker: (rank(worker, lane), worker))


def delay_s(worker: str, lane: str) -> float:
    """How long to wait before subscribing: a lane goes to whoever comes first.

    Those who want it less come later, so that a fresh fleet shares the lanes at once.
    """
    return SPREAD_S * (1 - rank(worker, lane) / _TOP)
