"""Ids in sixteen bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.audit.ids import pack, pack_if_ulid, unpack
from fleet.core.ulid import MAX_MS, make_ulid

ulids = st.builds(make_ulid, st.integers(0, MAX_MS), st.binary(min_size=10, max_size=10))


@given(ulids)
def test_packing_loses_nothing(ulid: str):
    """Sixteen bytes give back the very text."""
    assert len(pack(ulid)) == 16
    assert unpack(pack(ulid)) == ulid


@given(ulids, ulids)
def test_packed_ids_sort_like_their_texts(one: str, other: str):
    """The order of time is kept."""
    assert (pack(one) < pack(other)) == (one < other)


@given(st.one_of(st.none(), st.integers(), st.binary(), st.text(max_size=30)))
def test_what_is_no_ulid_is_no_id(garbage: object):
    """Garbage in a header is no id, and no crash."""
    assert pack_if_ulid(garbage) is None or unpack(pack_if_ulid(garbage) or b"") == garbage
