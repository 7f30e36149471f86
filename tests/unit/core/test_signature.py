"""A signature is believed by who has the key, for exactly these bytes under these names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.envelope import EVENT_ID, EVENT_TYPE
from fleet.core.errors import DataError
from fleet.core.signature import SIGNATURE, Key, Keys

OLD, NEW = Key("2025", b"o" * 32), Key("2026", b"n" * 32)
NAMED = {EVENT_ID: "01K7QZ3V8E0000000000000001", EVENT_TYPE: "order.requested", "x-worker": "w"}


@given(body=st.binary(max_size=200), other=st.binary(max_size=200))
def test_another_body_is_not_believed(body: bytes, other: bytes):
    """The body as it was signed is; any other is not."""
    keys = Keys(NEW)
    headers = keys.stamped(NAMED, body)
    assert not keys.trouble(headers, body)
    assert bool(keys.trouble(headers, other)) == (other != body)


@pytest.mark.parametrize("name", [EVENT_ID, EVENT_TYPE])
def test_another_name_is_not_believed(name: str):
    """Neither the id nor the type can be put in another's place, nor be shifted into each other."""
    keys = Keys(NEW)
    signed = keys.stamped(NAMED, b"{}")
    assert keys.trouble({**signed, name: "other"}, b"{}") == "its signature is wrong"
    shifted = {EVENT_ID: "a", EVENT_TYPE: "bc", SIGNATURE: ""}
    other = {EVENT_ID: "ab", EVENT_TYPE: "c"}
    assert keys.stamped(shifted, b"")[SIGNATURE] != keys.stamped(other, b"")[SIGNATURE]


def test_other_headers_may_change():
    """Counts and reasons are written on the way; they are not signed."""
    keys = Keys(NEW)
    signed = keys.stamped(NAMED, b"{}")
    assert not keys.trouble({**signed, "x-retry-count": 3, "x-worker": "v"}, b"{}")


def test_a_key_is_changed_without_a_gap():
    """Who still signs with the old one is believed by who knows both, and not by who forgot it."""
    old = Keys(OLD).stamped(NAMED, b"{}")
    assert not Keys(NEW, [OLD]).trouble(old, b"{}")
    assert Keys(NEW).trouble(old, b"{}") == "its signature names no key that is known here"
    assert Keys(NEW, [OLD]).stamped(NAMED, b"{}")[SIGNATURE].startswith("2026:")


@pytest.mark.parametrize(
    "value", [None, "", 7, "2026", "2026:", "2026:é", "2026:00", "2026:\udcff"]
)
def test_what_is_no_signature_is_not_believed(value: object):
    """Whatever stands there: it is a reason, never an error."""
    assert Keys(NEW).trouble({**NAMED, SIGNATURE: value}, b"{}")
    assert Keys(NEW).trouble(NAMED, b"{}") == "it is not signed"


@pytest.mark.parametrize("text", ["", "a", "a:short", ":" + "s" * 32, "a b:" + "s" * 32, "s" * 40])
def test_a_weak_key_is_refused_without_being_told(text: str):
    """Its id and 32 characters at least; the sentence does not repeat it, nor does its repr."""
    with pytest.raises(DataError) as raised:
        Key.read(text)
    assert "sss" not in str(raised.value)
    assert "sss" not in repr(Key.read("a:" + "s" * 32))
