"""ULIDs sort by time, and derived ones never change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.ulid import ALPHABET, MAX_MS, derived_ulid, is_ulid, make_ulid, ulid_ms

times = st.integers(0, MAX_MS)
entropies = st.binary(min_size=10, max_size=10)
keys = st.text(st.characters(exclude_categories=["Cs"]))


@given(times, entropies)
def test_a_ulid_tells_its_time(ms: int, entropy: bytes):
    """A ULID is canonical, and its milliseconds come back."""
    ulid = make_ulid(ms, entropy)
    assert is_ulid(ulid)
    assert ulid_ms(ulid) == ms


@given(times, entropies, times, entropies)
def test_ulids_sort_by_time(ms: int, entropy: bytes, later: int, more: bytes):
    """As text they stand in the order of time, then of entropy."""
    in_order = (ms, entropy) < (later, more)
    assert (make_ulid(ms, entropy) < make_ulid(later, more)) == in_order


@given(times, keys, keys)
def test_derived_ulids(ms: int, key: str, other: str):
    """The same time and key give the same id, always; another key gives another one."""
    ulid = derived_ulid(ms, key)
    assert is_ulid(ulid)
    assert ulid_ms(ulid) == ms
    assert (derived_ulid(ms, other) == ulid) == (key == other)


def test_derived_ulids_hold_across_releases():
    """A known value: were it to change, a repeated delivery would emit a second event."""
    assert derived_ulid(1_700_000_000_000, "parent:order.requested:k") == (
        "01HF7YAT00WZMCHCPFNYGGD1CB"
    )


@given(st.text())
def test_what_is_no_ulid(text: str):
    """Only 26 characters of the alphabet, the first below 8, are a ULID."""
    canonical = len(text) == 26 and set(text) <= set(ALPHABET) and text[0] < "8"
    assert is_ulid(text) == canonical


@pytest.mark.parametrize(
    ("ms", "entropy"), [(-1, b"0" * 10), (MAX_MS + 1, b"0" * 10), (0, b""), (0, b"0" * 11)]
)
def test_wrong_arguments(ms: int, entropy: bytes):
    """A time beyond 48 bits, or entropy that is not 10 bytes, is refused."""
    with pytest.raises(ValueError, match="a ULID's"):
        make_ulid(ms, entropy)
