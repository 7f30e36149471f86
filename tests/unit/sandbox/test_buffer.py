"""The buffer that clients resume from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.ulid import make_ulid
from sandbox.buffer import Buffer, Event


def event(number: int, ts_ms: int = 0) -> Event:
    """The event with this number."""
    return Event(make_ulid(1, number.to_bytes(10, "big")), "a.b", ts_ms, b"%d" % number)


@given(
    st.lists(st.integers(0, 30), max_size=200), st.integers(1, 40), st.integers(0, 100), st.data()
)
def test_the_buffer_is_the_tail_of_the_feed(
    gaps: list[int], most: int, age: int, data: st.DataObject
) -> None:
    """What is here is the newest run within age and count; numbers never shift."""
    buffer, told, now = Buffer(max_age_ms=age, max_events=most), [], 0
    for number, gap in enumerate(gaps):
        now += gap
        told.append(event(number, now))
        buffer.append(told[-1])
    kept = [entry for entry in told if entry.ts_ms >= now - age][-most:]
    assert (buffer.end, buffer.first) == (len(told), len(told) - len(kept))
    assert buffer.read(buffer.first, 1000) == kept
    assert buffer.oldest == (kept[0].id if kept else "")
    if told:
        seen = data.draw(st.integers(0, len(told) - 1))
        cursor, resumed = buffer.resume(told[seen].id)
        assert cursor == max(seen + 1, buffer.first)
        assert resumed == (seen + 1 >= buffer.first)


def test_a_stranger_begins_with_all_that_is_here() -> None:
    """No id, and an id that was never emitted here, both begin at the oldest event."""
    buffer = Buffer(max_age_ms=1000, max_events=2)
    for number in range(3):
        buffer.append(event(number))
    assert buffer.resume("") == (1, True)
    for unknown in (make_ulid(0, bytes(10)), make_ulid(9, bytes(10))):
        assert buffer.resume(unknown) == (1, False)


def test_a_cursor_that_fell_out_is_not_answered_with_something_else() -> None:
    """Reading what was dropped raises: nobody skips events without being told."""
    buffer = Buffer(max_age_ms=1000, max_events=2)
    for number in range(3):
        buffer.append(event(number))
    with pytest.raises(LookupError):
        buffer.read(0, 10)


def test_many_events_leave_a_bounded_list() -> None:
    """However many events pass through, only a fixed share above the bound is held."""
    buffer = Buffer(max_age_ms=1000, max_events=100)
    for number in range(30_000):
        buffer.append(event(number))
    assert len(buffer._events) < 6000
    assert buffer.read(29_999, 5) == [event(29_999)]
