"""What a frame becomes: an event for the exchange, or garbage for quarantine with its reason."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from fleet.core.signature import SIGNATURE, Key, Keys
from publisher.reading import KEPT_BYTES, Reader
from publisher.sources.api import Gap
from topology import names

NOW_MS = 1_790_000_000_000
FIRST, SECOND = "01K7QZ3V8E0000000000000001", "01K7QZ3V8E0000000000000002"


def frame(event_id: str = SECOND, **changes: Any) -> bytes:
    """A tick as it stands on the wire."""
    event = {
        "eventId": event_id,
        "type": "market.tick",
        "agentId": "pf_agent_1",
        "payload": {"pair": "BTC-USDT", "price": 1.5, "timestamp_ms": NOW_MS},
        "ts": NOW_MS,
    }
    return json.dumps(event | changes).encode()


@pytest.fixture
def reader() -> Reader:
    """A reader that has read the first event."""
    return Reader("stream:a", FIRST, partitions=16)


def test_a_tick_goes_to_its_partition(reader: Reader):
    """A tick is published unchanged under its type, with its pair's partition as a number."""
    raw = frame()
    posting = reader.read(raw, NOW_MS)
    assert posting.exchange == names.INGEST
    assert posting.routing_key == "market.tick"
    assert posting.body is raw
    assert posting.headers == {
        "x-event-id": SECOND,
        "x-event-type": "market.tick",
        names.PARTITION: names.partition("BTC-USDT", 16),
    }
    assert posting.live_only
    assert reader.cursor == posting.cursor == SECOND


def test_other_events_have_no_partition(reader: Reader):
    """Anything but a tick is durable, and no lane's."""
    posting = reader.read(frame(type="job.failed", payload={}), NOW_MS)
    assert names.PARTITION not in posting.headers
    assert not posting.live_only


def test_a_bad_payload_is_for_the_worker(reader: Reader):
    """The bridge reads the envelope: a known type with a bad payload is published, and parked."""
    posting = reader.read(frame(payload={"pair": "BTC-USDT", "price": -1}), NOW_MS)
    assert posting.exchange == names.INGEST


GARBAGE = {
    "nothing": b"",
    "no JSON": b"\x00\x01 garbage",
    "no UTF-8": frame().replace(b"BTC", b"\xff\xfe\xfd"),
    "NaN": frame().replace(b"1.5", b"NaN"),
    "Infinity": frame().replace(b"1.5", b"-Infinity"),
    "a key twice": frame().replace(b'"price": 1.5', b'"price": 1.5, "price": 2'),
    "too deep": frame().replace(b"1.5", b"[" * 5000 + b"]" * 5000),
    "too large": frame(payload={"pair": "A", "text": "x" * (KEPT_BYTES + 1)}),
    "no ULID": frame(event_id="not-a-ulid"),
    "a strange type": frame(type="Market Tick; DROP"),
    "a long type": frame(type="market." + "t" * 300),
    "a missing field": b'{"eventId": "01K7QZ3V8E0000000000000002"}',
    "a list": b"[1, 2, 3]",
    "a tick without a pair": frame(payload={"price": 1}),
    "a pair that is a number": frame(payload={"pair": 7, "price": 1}),
    "a lone surrogate": frame().replace(b"BTC", b"\\ud800"),
    "far in the future": frame(ts=NOW_MS + 10**9),
    "a payment": frame(type="payment.release_requested"),
    "a hiring": frame(type="job.hire_requested"),
    "an alert": frame(type="alert.raised"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_goes_to_quarantine(reader: Reader, name: str):
    """What cannot be read is kept with source, cursor, reason, length and hash."""
    raw = GARBAGE[name]
    posting = reader.read(raw, NOW_MS)
    assert posting.exchange == names.QUARANTINE
    assert posting.body == raw[:KEPT_BYTES]
    assert posting.headers["source"] == "stream:a"
    assert posting.headers["cursor"] == FIRST
    assert posting.headers["reason"]
    assert posting.headers["length"] == len(raw)
    assert posting.headers["sha256"] == hashlib.sha256(raw).hexdigest()
    assert posting.quarantined is not None
    assert not posting.live_only
    assert reader.cursor == posting.cursor == FIRST


def test_a_gap_is_a_range_between_two_events(reader: Reader):
    """What was missed is known by its ends: the cursor before and the next event that came."""
    reader.gap(Gap(FIRST, "could not resume"))
    assert reader.read(b"garbage", NOW_MS).missed is None
    missed = reader.read(frame(), NOW_MS).missed
    assert missed is not None
    assert (missed.after, missed.before) == (FIRST, SECOND)
    assert reader.read(frame(), NOW_MS).missed is None


def test_the_cursor_follows_arrival(reader: Reader):
    """Ids need not rise: the position is that of the frame that came last."""
    reader.read(frame(SECOND), NOW_MS)
    reader.read(frame(FIRST), NOW_MS)
    assert reader.cursor == FIRST


def test_a_frame_above_the_limit_is_not_read():
    """An operator's own bound, lower than the wire's: one byte more is quarantined."""
    raw = frame()
    assert Reader("s", FIRST, partitions=16, most_bytes=len(raw)).read(raw, NOW_MS).live_only
    refused = Reader("s", FIRST, partitions=16, most_bytes=len(raw) - 1).read(raw, NOW_MS)
    assert refused.exchange == names.QUARANTINE
    assert "bytes are more than" in refused.headers["reason"]


def test_what_is_read_is_signed_and_garbage_is_not():
    """Workers with the key believe the posting as it goes out, its partition included."""
    keys = Keys(Key("a", b"s" * 32))
    reader = Reader("s", FIRST, partitions=16, keys=keys)
    posting = reader.read(frame(), NOW_MS)
    assert not keys.trouble(posting.headers, posting.body)
    assert posting.headers[names.PARTITION] == names.partition("BTC-USDT", 16)
    assert SIGNATURE not in reader.read(b"{", NOW_MS).headers
