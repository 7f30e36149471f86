"""A parked message is understood, whatever its headers and body hold."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.envelope import ERROR_HISTORY, failure_headers, read_headers
from fleet.core.failure import failure
from replay.entry import death, read_entry, told

ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
NAMES = st.sampled_from(
    ["x-death", "x-event-id", "x-last-failed-at", "x-replay-count", "x-handler"]
)


def dead(queue: str, reason: str) -> dict[str, Any]:
    """An entry of x-death."""
    return {"queue": queue, "reason": reason, "count": 1, "time": AT, "exchange": ""}


@given(st.dictionaries(NAMES | st.text(), ANY), st.binary(), st.text(), st.text())
def test_everything_is_an_entry(headers: dict[str, Any], body: bytes, exchange: str, key: str):
    """No header and no body is so odd that the message cannot be listed."""
    entry = read_entry(headers, body, exchange=exchange, key=key)
    assert entry.id
    assert entry.digest == hashlib.sha256(body).hexdigest()
    assert entry.replays >= 0


def test_what_a_worker_parked_says_why():
    """The headers that a worker writes come back as they were."""
    why = failure("api", "Refused", "no")
    more = {"attempt": 3, "now_ms": 1_767_323_045_000, "queue": "pf.a", "worker": "w"}
    raw = failure_headers({"x-event-id": ULID}, why, handler="on_order", **more)  # type: ignore[arg-type]  # mixed
    entry = read_entry(raw, b"{}")
    assert (entry.id, entry.by, entry.home, entry.handler) == (ULID, "worker", "pf.a", "on_order")
    assert (entry.error_class, entry.error_type, entry.error) == ("api", "Refused", "no")
    assert (entry.attempts, entry.last_ms) == (3, 1_767_323_045_000)


def test_ids_come_from_the_body_where_no_header_has_one():
    """The body's own id counts, and a body without one is known by its digest."""
    body = f'{{"eventId": "{ULID}", "type": "a.b"}}'.encode()
    assert (read_entry({}, body).id, read_entry({}, body).type) == (ULID, "a.b")
    nameless = read_entry({"x-event-id": "nonsense"}, b"\xff")
    assert nameless.id == f"body-{nameless.digest[:16]}"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("expired", "ExpiredInQueue"), ("delivery_limit", "DeliveryLimit"), ("new", "DeadLettered")],
)
def test_the_broker_s_deaths_are_those_of_the_work_queue(reason: str, kind: str):
    """A bucket's entry is a delay: the queue it was to be handled from counts."""
    raw = {"x-death": [dead("pf.a.retry.03", "expired"), dead("pf.a", reason)], "x-retry-count": 1}
    entry = read_entry(raw, b"{}")
    assert (entry.by, entry.home, entry.error_type) == ("broker", "pf.a", kind)
    assert entry.last_ms == AT.timestamp() * 1000
    assert len(told(raw)[ERROR_HISTORY]) == 1
    assert read_headers(told(raw)).attempt == 3


def test_a_retried_message_is_not_dead():
    """Only a bucket in x-death: the broker has done nothing but delay it."""
    raw = {"x-death": [dead("pf.a.retry.03", "expired")]}
    assert death(raw) is None
    assert told(raw) is raw


def test_what_nobody_wanted_keeps_where_it_was_published():
    """Also after the archive, whose way back goes through a fanout."""
    entry = read_entry({}, b"{}", exchange="pf.ingest", key="a.b")
    assert (entry.by, entry.type, entry.home, entry.exchange) == (
        "unrouted",
        "a.b",
        "a.b",
        "pf.ingest",
    )
    raw = {"x-unrouted-exchange": "pf.ingest", "x-unrouted-key": "a.b"}
    assert read_entry(raw, b"{}", exchange="pf.unrouted", key="pf.unrouted") == entry
