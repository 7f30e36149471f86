"""The bytes of a message are what AMQP says, and what does not fit is refused before it is sent."""

from __future__ import annotations

from typing import Any

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.header import ContentHeader

from fleet.amqp import frames
from fleet.core.errors import DataError

FRAME_MAX = 4096


def write(**changes: Any) -> bytes:
    """A message on channel 3, as bytes."""
    message: dict[str, Any] = {
        "exchange": "pf.ingest",
        "routing_key": "market.tick",
        "body": b"{}",
        "headers": {},
        "message_id": "id-1",
        "now_s": 1_700_000_000,
    }
    return frames.message(3, FRAME_MAX, **(message | changes))


def parse(octets: bytes) -> list[Any]:
    """The frames as pamqp, which others wrote, reads them."""
    parsed = []
    while octets:
        length, channel, frame = pamqp.frame.unmarshal(octets)
        assert channel == 3
        assert length <= FRAME_MAX
        parsed.append(frame)
        octets = octets[length:]
    return parsed


def test_method_and_properties():
    """A message is mandatory, persistent JSON with its id, time, type and expiration."""
    headers = {"x-event-type": "market.tick"}
    method, header, body = parse(write(headers=headers, expiration_ms=250))
    assert isinstance(method, commands.Basic.Publish)
    assert (method.exchange, method.routing_key) == ("pf.ingest", "market.tick")
    assert method.mandatory
    assert isinstance(header, ContentHeader)
    properties = header.properties
    assert properties.delivery_mode == 2
    assert properties.content_type == "application/json"
    assert properties.message_id == "id-1"
    assert properties.message_type == "market.tick"
    assert properties.expiration == "250"
    assert properties.timestamp is not None
    assert properties.timestamp.timestamp() == 1_700_000_000
    assert body.value == b"{}"


@pytest.mark.parametrize("size", [0, 1, FRAME_MAX - 9, FRAME_MAX - 8, FRAME_MAX - 7, 100_000])
def test_bodies_of_any_size(size: int):
    """A body is cut into frames that the broker takes, and none is empty."""
    body = bytes(index % 251 for index in range(size))
    _, header, *pieces = parse(write(body=body))
    assert header.body_size == size
    assert b"".join(piece.value for piece in pieces) == body
    assert all(piece.value for piece in pieces)


values = st.recursive(
    st.text() | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text("abc-", min_size=1, max_size=20), values, max_size=5))
def test_headers_arrive_as_they_were(headers: dict[str, Any]):
    """Headers of every kind are read back as they were written."""
    _, header, *_ = parse(write(headers=headers))
    assert (header.properties.headers or {}) == headers


def test_broker_headers_are_stripped():
    """What the broker sets is never sent back to it: a copied x-death loses messages on 3.x."""
    ours = {"x-event-id": "1", "x-retry-count": 2, "x-stream": "ours"}
    theirs = {
        "x-death": [{"count": 1}],
        "x-first-death-queue": "q",
        "x-last-death-reason": "r",
        "x-delivery-count": 3,
        "x-acquired-count": 4,
        "x-stream-offset": 5,
    }
    _, header, *_ = parse(write(headers=ours | theirs))
    assert header.properties.headers == ours


@pytest.mark.parametrize(
    "changes",
    [
        {"routing_key": "k" * 256},
        {"headers": {"h" * 256: "v"}},
        {"headers": {"h": "\ud800"}},
        {"headers": {"h": 2**64}},
        {"headers": {"h": object()}},
        {"headers": {"h": "v" * FRAME_MAX}},
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any]):
    """A message that AMQP cannot carry is a DataError, not a broken connection."""
    with pytest.raises(DataError):
        write(**changes)
