"""Failures: classed by type, grouped by place, bounded and without secrets."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core import errors
from fleet.core.failure import MAX_MESSAGE, Failure, classify, describe, failure, where
from fleet.core.redact import redact

CLASSES = {"network", "api", "data", "logic", "state", "resource"}


class Unspeakable(Exception):  # noqa: N818 - a fault, not an error of ours
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        """Raise instead of answering."""
        raise RuntimeError("no text")


def here(error: Exception) -> Failure:
    """The failure of `error`, raised here."""
    try:
        raise error  # noqa: TRY301 - the place is the point
    except Exception as raised:  # noqa: BLE001 - any kind
        return describe(raised)


def there(error: Exception) -> Failure:
    """The failure of `error`, raised there."""
    try:
        raise error  # noqa: TRY301 - the place is the point
    except Exception as raised:  # noqa: BLE001 - any kind
        return describe(raised)


def test_where_it_was_raised_is_one_line():
    """The last calls on the way there, without the first, which is the runtime's; else nothing."""

    def inner() -> None:
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd") as raised:
        inner()
    assert re.fullmatch(r"test_failure\.py:\d+ inner", where(raised.value))
    assert where(ValueError("never raised")) == ""


@given(st.text(), st.text())
def test_alike_failures_group(one: str, other: str):
    """Failures of one type at one place share a fingerprint, whatever ids their texts carry."""
    assert here(ValueError(one)).fingerprint == here(ValueError(other)).fingerprint
    assert failure("data", "Odd", one).fingerprint == failure("data", "Odd", other).fingerprint


def test_unlike_failures_do_not_group():
    """Another type, or another place, has another fingerprint."""
    prints = {
        here(ValueError()).fingerprint,
        here(KeyError()).fingerprint,
        there(ValueError()).fingerprint,
        describe(ValueError()).fingerprint,
        failure("data", "Odd", "").fingerprint,
    }
    assert len(prints) == 5


@given(st.text())
def test_a_failure_fits_a_header(text: str):
    """Its text is never empty, bounded and valid Unicode, whatever was raised."""
    for found in (here(LookupError(text)), here(errors.DataError(text))):
        assert 0 < len(found.message) <= MAX_MESSAGE
        found.message.encode()
        assert len(found.fingerprint) == 12
        assert found.error_class in CLASSES


def test_an_error_that_cannot_be_shown():
    """An exception whose text raises is still a failure, called by its type."""
    assert here(Unspeakable()).message == "Unspeakable"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), "network"),
        (ConnectionResetError(), "network"),
        (socket.gaierror(), "network"),
        (ssl.SSLError(), "network"),
        (EOFError(), "network"),
        (OSError(errno.ENOSPC, "disk full"), "resource"),
        (OSError(errno.EMFILE, "too many files"), "resource"),
        (MemoryError(), "resource"),
        (msgspec.ValidationError(), "data"),
        ("\ud800", "data"),
        (ZeroDivisionError(), "logic"),
        (TypeError(), "logic"),
        (errors.NetworkError(), "network"),
        (errors.ApiError(), "api"),
        (errors.NotNowError(), "api"),
        (errors.RefusedError(), "api"),
        (errors.EnvelopeError(), "data"),
        (errors.LogicError(), "logic"),
        (errors.StateError(), "state"),
        (errors.StoreError(), "state"),
        (errors.ResourceError(), "resource"),
        (errors.PublishNacked(), "network"),
    ],
)
def test_classes(error: Exception | str, expected: str):
    """Every kind of error has its failure class; what nobody knows is a bug."""
    if isinstance(error, str):
        with pytest.raises(UnicodeError) as caught:
            error.encode()
        error = caught.value
    assert classify(error) == expected


SECRET = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-.", min_size=12, max_size=40).map(
    lambda text: f"x9z{text}z9x"
)
SPOTS: list[Callable[[str], str]] = [
    "pf_live_{}".format,
    "sk_live_{}".format,
    "key=pf_test_{}".format,
    "agent_pf_live_{}".format,
    "Authorization: Bearer {}".format,
    "authorization: bearer   {}".format,
    "Proxy-Authorization: Basic {}==".format,
    "amqp://fleet:{}@broker:5672/".format,
    "amqps://fleet:p@ss{}@broker".format,
    "postgresql://:{}@db/fleet".format,
    "https://{}@example.org/hook".format,
]


@given(st.sampled_from(SPOTS), SECRET, st.text(), st.text())
def test_no_secret_survives(spot: Callable[[str], str], secret: str, before: str, after: str):
    """No key, bearer token or URL password is left, whatever stands around it."""
    text = f"{before} {spot(secret)} {after}"
    assert secret not in redact(text)
    assert secret not in here(RuntimeError(text)).message
    assert secret not in failure("logic", "Odd", text).message


@given(st.sampled_from(SPOTS), SECRET)
def test_masking_twice_is_masking_once(spot: Callable[[str], str], secret: str):
    """What is masked stays as it is."""
    once = redact(spot(secret))
    assert redact(once) == once


def test_what_is_no_secret_stays():
    """Text without secrets is left as it is."""
    text = "https://example.org/a@b and user@example.org, 3:4, bearer of news"
    assert redact(text).replace("bearer ***", "bearer of") == text
