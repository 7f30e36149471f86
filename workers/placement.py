"""How lanes spread over replicas that know nothing of each other: pure rules."""

from __future__ import annotations

import hashlib
from typing import Final

SPREAD_S: Final = 2.0
_TOP: Final = 1 << 24


def rank(worker: str, lane: str) -> int:
    """How much `worker` wants `lane`, 0 to 2^24 - 1.

    Rendezvous hashing (Thaler and Ravishankar, 1998): of all workers the one with the highest
    rank has the lane, and when it goes only its own lanes move.
    """
    return int.from_bytes(hashlib.sha256(f"{worker}\n{lane}".encode()).digest()[:3], "big")


def delay_s(worker: str, lane: str) -> float:
    """How long to wait before subscribing where the broker knows no consumer priorities.

    Up to RabbitMQ 3.13 the first consumer of a lane keeps it; so those who want it less come later.
    """
    return SPREAD_S * (1 - rank(worker, lane) / _TOP)


def has_priorities(version: str) -> bool:
    """Whether this RabbitMQ lets the consumer with the highest priority be the active one."""
    major = version.partition(".")[0]
    return major.isdigit() and int(major) >= 4  # noqa: PLR2004 - the first with them
