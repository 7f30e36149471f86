"""Events: whatever comes in is an event or an EnvelopeError, and what goes out comes back."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.errors import DataError, EnvelopeError
from fleet.core.events import (
    EARLIEST_MS,
    MAX_AHEAD_MS,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_TYPE,
    Event,
    read_event,
    write_event,
)
from fleet.core.payloads import KNOWN
from fleet.core.ulid import is_ulid, make_ulid

NOW = 1_800_000_000_000
ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
TICK = '{"pair":"BTC/USDT","price":1.5,"timestamp_ms":1800000000000}'

text = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers(-(10**30), 10**30) | st.decimals(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | text | numbers
trees = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=20
)
words = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
events = st.builds(
    Event,
    event_id=st.builds(make_ulid, st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10)),
    type=st.builds("{}.{}".format, words, words).filter(lambda name: name not in KNOWN),
    agent_id=st.from_regex(r"[A-Za-z0-9_.\-]{1,128}", fullmatch=True),
    payload=st.dictionaries(text, trees),
    ts=st.integers(EARLIEST_MS, NOW + MAX_AHEAD_MS),
)


def envelope(payload: str = "{}", **fields: str) -> str:
    """JSON text of an envelope; `fields` are JSON texts that replace or add to the good ones."""
    good = {
        "eventId": f'"{ID}"',
        "type": '"test.event"',
        "agentId": '"pf_agent_1"',
        "payload": payload,
        "ts": str(NOW),
    }
    pairs = (f"{json.dumps(name)}:{value}" for name, value in (good | fields).items())
    return "{" + ",".join(pairs) + "}"


def refused(raw: bytes | str) -> str:
    """The reason why `raw` is no event: one line, short enough for a header."""
    with pytest.raises(EnvelopeError) as caught:
        read_event(raw, NOW)
    reason = str(caught.value)
    assert 0 < len(reason) <= 200
    assert "\n" not in reason
    return reason


def reads_or_refuses(raw: bytes | str) -> None:
    """Read `raw`; whatever is taken holds the promises of Event and can be written again."""
    try:
        event = read_event(raw, NOW)
    except EnvelopeError:
        return
    assert is_ulid(event.event_id)
    assert EARLIEST_MS <= event.ts <= NOW + MAX_AHEAD_MS
    assert len(event.type) <= MAX_TYPE
    assert read_event(write_event(event), NOW) == event


@given(st.binary())
def test_any_bytes(raw: bytes):
    """Bytes are an event or an EnvelopeError, nothing else."""
    reads_or_refuses(raw)


@given(st.text())
def test_any_text(raw: str):
    """Text is an event or an EnvelopeError, also with lone surrogates."""
    reads_or_refuses(raw)


@given(st.recursive(leaves | st.floats(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_json(tree: Any):
    """JSON of any shape is an event or an EnvelopeError; so is Python's JSON with its NaN."""
    raw = json.dumps(tree, default=str)
    reads_or_refuses(raw)
    reads_or_refuses(envelope(raw))


@given(st.sampled_from(["eventId", "type", "agentId", "payload", "ts"]), trees)
def test_any_value_in_any_field(field: str, value: Any):
    """A field with any other value is right or refused."""
    reads_or_refuses(envelope(**{field: json.dumps(value, default=str)}))


@given(st.binary(max_size=6), st.data())
def test_a_good_event_with_damage(damage: bytes, data: st.DataObject):
    """An event damaged anywhere is right or refused."""
    good = envelope(TICK, type='"market.tick"').encode()
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(start + 8, len(good))))
    reads_or_refuses(good[:start] + damage + good[end:])


@given(events)
def test_what_is_written_is_read(event: Event):
    """A round trip keeps every field, and the unknown ones of the payload."""
    body = write_event(event)
    again = read_event(body, NOW)
    assert again == event
    assert write_event(again) == body


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_keeps_its_digits(number: Decimal):
    """A fraction comes back digit for digit: no float lies in between."""
    written = write_event(Event(ID, "test.event", "a", {"price": number}, NOW))
    price = read_event(written, NOW).payload["price"]
    assert str(price) == str(number) or (type(price) is int and price == number)


@given(st.from_regex(r"-?(0|[1-9][0-9]{0,40})\.[0-9]{1,40}", fullmatch=True))
def test_a_fraction_on_the_wire_is_a_decimal(literal: str):
    """A fraction is read as the Decimal of its own text."""
    price = read_event(envelope(f'{{"price":{literal}}}'), NOW).payload["price"]
    assert type(price) is Decimal
    assert str(price) == str(Decimal(literal))


@pytest.mark.parametrize("mark", ["price", 'a " b', 'x\\": ', "", "ключ"])
@pytest.mark.parametrize(
    "payload",
    [
        "{%s:1,%s:2}",
        '{"a":{%s:1,%s:1}}',
        '{"a":[{"b":[{"c":{%s:{},%s:[]}}]}]}',
        '{"text":"a\\":b\\" : c",%s:null,%s:null}',
    ],
)
def test_a_key_twice(payload: str, mark: str):
    """A key that stands twice in one object is refused at any depth."""
    key = json.dumps(mark)
    assert "twice" in refused(envelope(payload % (key, key)))


def test_a_key_twice_in_the_envelope():
    """A second eventId is refused, also written with an escape."""
    good = envelope()
    assert "twice" in refused(good[:-1] + f',"eventId":"{ID}"}}')
    assert "twice" in refused(good[:-1] + f',"event\\u0049d":"{ID}"}}')


def test_one_key_in_two_objects():
    """The same key in two objects, and marks of keys in texts, are no duplicates."""
    payload = '{"a":{"n":1},"b":[{"n":1},{"n":2}],"say":"\\"n\\": 1, \\"n\\": 2"}'
    assert read_event(envelope(payload), NOW).payload["b"] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("opening", ['{"a":', "["])
@pytest.mark.parametrize(("levels", "fits"), [(30, True), (40, False), (100_000, False)])
def test_depth(opening: str, levels: int, *, fits: bool):
    """More than 32 levels are refused, also so many that a parser would run out of stack."""
    closing = "}" if opening.startswith("{") else "]"
    raw = envelope('{"a":' + opening * levels + "1" + closing * levels + "}")
    if fits:
        read_event(raw, NOW)
    else:
        assert str(MAX_DEPTH) in refused(raw)


def test_depth_beside_the_payload():
    """An unknown field of the envelope cannot exhaust the stack either."""
    reads_or_refuses(envelope(other="[" * 100_000 + "]" * 100_000))


@pytest.mark.parametrize(
    "number",
    ["NaN", "Infinity", "-Infinity", "1e99999999999999999999", "9" * 5000, "+1", "01", "1.", ".5"],
)
def test_numbers_that_are_none(number: str):
    """NaN, Infinity, absurd exponents and integers of 5,000 digits are refused."""
    refused(envelope(f'{{"x":{number}}}'))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"{}",
        b"\xef\xbb\xbf" + envelope().encode(),
        envelope().encode("utf-16"),
        envelope().encode("utf-32"),
        envelope('{"a":"é"}').encode("latin-1"),
        envelope('{"a":"\ud800"}'),
        envelope('{"a":"\\ud800"}'),
        envelope('{"\\ud800":1}'),
        envelope() + envelope(),
        envelope()[:-1],
    ],
)
def test_text_that_is_none(raw: bytes | str):
    """No JSON, a byte order mark, other encodings and lone surrogates are refused."""
    refused(raw)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", '"tick"'),
        ("type", '"market.tick.now"'),
        ("type", '"Market.Tick"'),
        ("type", '"market.#"'),
        ("type", '"market.*"'),
        ("type", '"market.tick\\n"'),
        ("type", '"märkte.tick"'),
        ("type", json.dumps("a." + "b" * 298)),
        ("eventId", '"01ARZ3NDEKTSV4RRFFQ69G5FA"'),
        ("eventId", '"01arz3ndektsv4rrffq69g5fav"'),
        ("eventId", '"81ARZ3NDEKTSV4RRFFQ69G5FAV"'),
        ("eventId", '"01ARZ3NDEKTSV4RRFFQ69G5FAI"'),
        ("eventId", f'"{ID}\\n"'),
        ("eventId", "1"),
        ("agentId", '""'),
        ("agentId", '"a b"'),
        ("agentId", json.dumps("a" * 129)),
        ("agentId", "null"),
        ("payload", "null"),
        ("payload", "[]"),
        ("payload", '"{}"'),
        ("ts", str(EARLIEST_MS - 1)),
        ("ts", str(NOW + MAX_AHEAD_MS + 1)),
        ("ts", f'"{NOW}"'),
        ("ts", f"{NOW}.0"),
        ("ts", "true"),
        ("ts", "1e12"),
    ],
)
def test_wrong_fields(field: str, value: str):
    """A field of the wrong form is refused."""
    refused(envelope(**{field: value}))


@pytest.mark.parametrize("field", ["eventId", "type", "agentId", "payload", "ts"])
def test_missing_fields(field: str):
    """A field that is not there is refused, and named."""
    fields = json.loads(envelope())
    del fields[field]
    assert field in refused(json.dumps(fields))


@pytest.mark.parametrize("ts", [EARLIEST_MS, NOW + MAX_AHEAD_MS])
def test_the_bounds_of_ts(ts: int):
    """The first millisecond of 2020 and five minutes ahead are still taken."""
    assert read_event(envelope(ts=str(ts)), NOW).ts == ts


def test_the_limit_of_size():
    """Exactly 1 MiB is taken, one byte more is not; nothing of it is repeated in the reason."""
    filler = "x" * (MAX_BYTES - len(envelope('{"a":""}')))
    assert read_event(envelope(f'{{"a":"{filler}"}}'), NOW).payload == {"a": filler}
    assert str(MAX_BYTES) in refused(envelope(f'{{"a":"{filler}x"}}'))


@pytest.mark.parametrize(
    "wrong",
    [
        Event(ID, "No Type", "a", {}, NOW),
        Event("no ulid", "a.b", "a", {}, NOW),
        Event(ID, "a.b", "a", {"x": Decimal("NaN")}, NOW),
        Event(ID, "a.b", "a", {"x": "\ud800"}, NOW),
        Event(ID, "a.b", "a", {"x": object()}, NOW),
        Event(ID, "a.b", "a", {"x": "y" * MAX_BYTES}, NOW),
        Event(ID, "a.b", "a", {}, 0),
    ],
)
def test_what_nobody_could_read_is_not_written(wrong: Event):
    """Writing an event that every reader would refuse raises, as a failure of the data."""
    with pytest.raises(DataError):
        write_event(wrong)


def test_an_event_does_not_change():
    """An event is immutable."""
    event = read_event(envelope(), NOW)
    with pytest.raises(AttributeError):
        event.ts = 0  # type: ignore[misc] # the test's point
