"""Why the broker is not to be had, in one sentence that says what to do; never with a password."""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import Final

from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    InvalidFrameError,
    ProbableAuthenticationError,
    ProtocolSyntaxError,
)
from yarl import URL

from fleet.amqp.access import refusal
from fleet.core.errors import BrokerError, OperatorError
from fleet.settings import addresses

NOT_ALLOWED: Final = 530  # the broker's reply for a virtual host that is not there or not ours
MAX_FRAME: Final = 1 << 24  # far beyond what brokers agree to


def parse(url: str) -> URL:
    """The parsed AMQP address, the first where there are several.

    Raises BrokerError where it is none; the text is not repeated.
    """
    try:
        parsed = URL(addresses(url)[0])
        port_is_fine = parsed.port is None or 0 < parsed.port < 2**16
    except ValueError:
        raise BrokerError(_NO_ADDRESS) from None
    if parsed.scheme not in {"amqp", "amqps"} or not parsed.host or not port_is_fine:
        raise BrokerError(_NO_ADDRESS)
    return parsed


def explain(url: str, error: BaseException) -> OperatorError:
    """One sentence on why the broker at `url` is not to be had; never with a password."""
    if isinstance(error, OperatorError):
        return error
    if refused := refusal(error):
        return refused
    address = parse(url)
    where = f"{address.host}:{address.port or _PORTS[address.scheme]}"
    if isinstance(error, ProbableAuthenticationError | AuthenticationError):
        return BrokerError(
            f"The broker at {where} refuses user {address.user or 'guest'!r} and its password;"
            " correct AMQP_URL, or AMQP_PASSWORD."
        )
    if _is_vhost(error):
        vhost = address.path.lstrip("/") or "/"
        return BrokerError(
            f"The broker at {where} has no virtual host {vhost!r} for this user;"
            " create it or correct AMQP_URL."
        )
    if shown := _certificate(error):
        return BrokerError(f"The broker at {where} {shown}")
    tongue = _unspoken(error)
    return BrokerError(
        f"What listens at {where} does not speak {tongue}; correct AMQP_URL."
        if tongue
        else f"Cannot reach the broker at {where} ({_reason(error)}); start it or correct AMQP_URL."
    )


def is_final(error: BaseException) -> bool:
    """Whether trying again cannot help: a refused user or virtual host, or a bad certificate."""
    return (
        isinstance(error, OperatorError | ProbableAuthenticationError | AuthenticationError)
        or _is_vhost(error)
        or isinstance(error.__cause__, ssl.SSLCertVerificationError)
    )


_PORTS: Final = {"amqp": 5672, "amqps": 5671}
_NO_TLS: Final = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE"}
_CUT_FRAME: Final = re.compile(r"Read [1-9]\d* bytes but (?P<wanted>\d+) bytes expected")
_NO_ADDRESS: Final = "AMQP_URL is no AMQP address; write amqp://user:password@host:5672/vhost."


def _certificate(error: BaseException) -> str:
    """What is wrong with a certificate, the broker's or ours; "" where it is something else."""
    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
        why = error.__cause__.verify_message.rstrip(".")
        return (
            f"shows a certificate that is not good ({why}); name its CA in AMQP_CA_FILE, and the"
            " host as the certificate does."
        )
    words = _words(error)
    if "ALERT" in words and "CERTIFICATE" in words:
        return (
            "does not take our certificate, or wants one; correct AMQP_CERT_FILE and AMQP_KEY_FILE."
        )
    return ""


def _is_vhost(error: BaseException) -> bool:
    # aiormq 7.2 does not look into a close that comes instead of the answer to "open".
    if isinstance(error, InvalidFrameError):
        return "Connection.OpenOk" in str(error)
    return isinstance(error, AMQPError) and NOT_ALLOWED in error.args[:1]


def _unspoken(error: BaseException) -> str:
    """What the other side does not speak, where the error shows that."""
    if isinstance(error.__cause__, ssl.SSLError):
        return "TLS" if error.__cause__.reason in _NO_TLS else ""
    cut = _CUT_FRAME.search(_words(error))
    # What another protocol says first, read as the length of a frame, is beyond every frame.
    foreign = cut is not None and int(cut["wanted"]) > MAX_FRAME
    return "AMQP 0-9-1" if foreign or isinstance(error, ProtocolSyntaxError) else ""


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, asyncio.CancelledError | StopAsyncIteration) or _is_cut(error):
        return "it dropped the connection"
    return _words(error)


def _is_cut(error: BaseException) -> bool:
    cut = error.__cause__
    return isinstance(cut, ConnectionResetError | BrokenPipeError | asyncio.IncompleteReadError)


def _words(error: BaseException) -> str:
    return " ".join(str(part) for part in error.args) or type(error).__name__
