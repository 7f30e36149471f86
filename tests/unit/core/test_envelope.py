"""Delivery headers: garbage never raises, counts are sane, history is bounded."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fleet.core import envelope
from fleet.core.dedup import Recent
from fleet.core.envelope import MAX_COUNT, MAX_HISTORY, Headers, failure_headers, read_headers
from fleet.core.errors import NetworkError
from fleet.core.events import Event
from fleet.core.failure import describe

NAMES = [getattr(envelope, name) for name in dir(envelope) if name.isupper()]
NAMES = [name for name in NAMES if isinstance(name, str)]
garbage = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.just(Decimal("NaN"))
    | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
headers = st.dictionaries(st.sampled_from(NAMES) | st.text(), garbage)
FAILURE = describe(NetworkError("no answer"))
NOW = 1_700_000_000_000


def failed(raw: dict[str, Any], attempt: int) -> dict[str, Any]:
    """The headers after a failure in `attempt`."""
    return failure_headers(
        raw, FAILURE, attempt=attempt, now_ms=NOW + attempt, queue="q", worker="w", handler="h"
    )


@given(headers)
def test_garbage_never_raises(raw: dict[str, Any]):
    """Whatever stands in the headers, counts come out sane and a failure can be written."""
    read = read_headers(raw)
    assert 1 <= read.attempt <= MAX_COUNT + 1
    assert 0 <= read.replay_count <= MAX_COUNT
    written = failed(raw, read.attempt)
    assert len(written[envelope.ERROR_HISTORY]) <= MAX_HISTORY
    assert all(len(line) <= 300 for line in written[envelope.ERROR_HISTORY])
    assert set(raw) <= set(written)


@given(st.integers(0, MAX_COUNT), st.integers(0, MAX_COUNT), st.booleans())
def test_counts_are_read(retries: int, replays: int, stale: bool):
    """A message retried n times is in attempt n + 1."""
    raw = {
        envelope.RETRY_COUNT: retries,
        envelope.REPLAY_COUNT: replays,
        envelope.ALLOW_STALE: stale,
    }
    assert read_headers(raw) == Headers(retries + 1, replays, stale)


def test_a_new_message():
    """Without headers it is the first attempt."""
    assert read_headers({}) == Headers(attempt=1, replay_count=0, allow_stale=False)


@given(st.integers(1, 40))
def test_a_history_of_failures(times: int):
    """After n failures the next attempt is n + 1; the first time stays, the last lines are kept."""
    raw: dict[str, Any] = {}
    for attempt in range(1, times + 1):
        assert read_headers(raw).attempt == attempt
        raw = failed(raw, attempt)
    history = raw[envelope.ERROR_HISTORY]
    assert len(history) == min(times, MAX_HISTORY)
    assert f"attempt {times} network NetworkError" in history[-1]
    first, last = (raw[name] for name in (envelope.FIRST_FAILED_AT, envelope.LAST_FAILED_AT))
    assert datetime.fromisoformat(first).timestamp() * 1000 == NOW + 1
    assert datetime.fromisoformat(last).timestamp() * 1000 == NOW + times


def test_what_a_person_reads():
    """A failed message says why, where and by whom, in words."""
    said = failed({"x-own": 1}, 2)
    assert said == {
        "x-own": 1,
        "x-retry-count": 2,
        "x-first-failed-at": "2023-11-14T22:13:20.002+00:00",
        "x-last-failed-at": "2023-11-14T22:13:20.002+00:00",
        "x-error-class": "network",
        "x-error-type": "NetworkError",
        "x-error-message": "no answer",
        "x-error-fingerprint": FAILURE.fingerprint,
        "x-error-history": [
            "2023-11-14T22:13:20.002+00:00 attempt 2 network NetworkError: no answer"
        ],
        "x-failed-queue": "q",
        "x-worker": "w",
        "x-handler": "h",
    }


def test_a_published_event():
    """Id and type travel in headers, so that a body that cannot be read is still known."""
    event = Event("01ARZ3NDEKTSV4RRFFQ69G5FAV", "job.failed", "a", {}, NOW)
    assert envelope.event_headers(event) == {
        "x-event-id": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "x-event-type": "job.failed",
    }


@given(st.lists(st.integers(0, 30).map(str)), st.integers(1, 10))
def test_the_memory_of_ids_is_bounded(ids: list[str], capacity: int):
    """The last ids are remembered, in the order in which they came new, and never more."""
    recent = Recent(capacity)
    expected: list[str] = []
    for event_id in ids:
        if event_id not in expected:
            expected = [*expected, event_id][-capacity:]
        recent.add(event_id)
        assert len(recent) <= capacity
        assert event_id in recent
    assert [event_id for event_id in dict.fromkeys(ids) if event_id in recent] == [
        event_id for event_id in dict.fromkeys(ids) if event_id in expected
    ]
