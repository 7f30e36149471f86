"""The handshake: what is no usable broker is one clear sentence, without the password."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.broker.handshake import Address, check
from fleet.core.errors import BrokerError

SECRET = "s3cr3t-w0rd"  # noqa: S105 - what must never be shown


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """A server that reads a little, says `reply` and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(8)
                client.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


@given(st.text())
def test_any_text_is_read_or_refused(text: str):
    """An AMQP_URL may be garbage: it is an address, or a BrokerError."""
    for url in (text, f"amqp://{text}", f"amqp://u:p@h:{text}/v"):
        try:
            assert Address.parse(url).host
        except BrokerError as error:
            assert str(error).endswith(".")  # noqa: PT017 - both ends are right


def test_parts_are_unquoted():
    """User, password and virtual host may hold any character, quoted as URLs want it."""
    at = Address.parse("amqp://a%40b:c%2Fd@host/%2Fv")
    assert (at.user, at.password, at.host, at.port, at.vhost) == ("a@b", "c/d", "host", 5672, "/v")
    assert Address.parse("amqp://host").vhost == "/"


def test_password_is_not_shown():
    """An address may be logged."""
    at = Address.parse(f"amqp://me:{SECRET}@host/")
    assert SECRET not in f"{at} {at!r}"


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"AMQP\x00\x00\x09\x01",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x01\x00\x00\xff\xff\xff\xff",
        b"\x01\x00\x00\x00\x00\x00\x04abcd\xce",
        b"\x01\x00\x00\x00\x00\x00\x08\x00\x0a\x00\x0a\x00\x09\x00\x00\xce",
    ],
)
def test_what_is_no_broker_is_said(reply: bytes):
    """Whatever answers instead of a broker, the error is one sentence without the password."""
    with (
        answering(reply) as port,
        pytest.raises(BrokerError, match=r"^[^\n]*check AMQP_URL\.$") as error,
    ):
        check(f"amqp://me:{SECRET}@127.0.0.1:{port}/", timeout=5)
    assert SECRET not in str(error.value)


def test_nobody_there():
    """A port that nobody listens on is named."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets it
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"127.0.0.1:{port}"):
            check(f"amqp://127.0.0.1:{port}/", timeout=5)
