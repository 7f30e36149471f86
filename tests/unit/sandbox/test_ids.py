"""Event ids."""

from __future__ import annotations

import itertools
import os

from hypothesis import given
from hypothesis import strategies as st

from fleet.core.ulid import is_ulid, ulid_ms
from sandbox.ids import Ulids


@given(st.lists(st.integers(0, 2**47), min_size=2, max_size=50))
def test_ids_only_go_up(clock: list[int]) -> None:
    """Whatever the clock does, ids are ULIDs, strictly increasing, and carry the given time."""
    ids = Ulids(os.urandom)
    made = [ids.next(ms) for ms in clock]
    assert all(is_ulid(text) and ulid_ms(text) == ms for text, ms in made)
    assert all(first < second for (first, _), (second, _) in itertools.pairwise(made))


def test_a_busy_millisecond_carries_into_the_prefix() -> None:
    """More than a million events in one millisecond still have increasing ids."""
    ids = Ulids(lambda size: b"\x00" * (size - 3) + b"\x0f\xff\xf0")
    made = [ids.next(5)[0] for _ in range(40)]
    assert made == sorted(set(made))
    assert made[0][:22] != made[-1][:22]
