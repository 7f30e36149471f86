"""What went wrong, as a value that fits into headers and groups with its like."""

from __future__ import annotations

import errno
import hashlib
from types import TracebackType
from typing import Final

import msgspec

from fleet.core.errors import FleetError
from fleet.core.redact import redact

MAX_MESSAGE: Final = 500
CALLS: Final = 3
"""Of a traceback as one line: the runtime's own frame is none of them."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE})
_NETWORK: Final = (OSError, TimeoutError, EOFError)
_DATA: Final = (msgspec.MsgspecError, UnicodeError)


class Failure(msgspec.Struct, frozen=True, gc=False):
    """One failure: its class (network, api, data, logic, state, resource), type, text and place.

    `fingerprint` is the same for failures of one type at one place, whatever ids or numbers
    their texts carry.
    """

    error_class: str
    error_type: str
    message: str
    fingerprint: str


def describe(error: BaseException) -> Failure:
    """The failure that `error` stands for; its text is bounded and free of secrets."""
    kind = type(error).__name__
    return Failure(
        error_class=classify(error),
        error_type=kind,
        message=_message(_text(error) or kind),
        fingerprint=fingerprint(kind, _place(error.__traceback__)),
    )


def failure(error_class: str, kind: str, message: str) -> Failure:
    """A failure that no exception stands for, such as a message that nobody handles."""
    return Failure(error_class, kind, _message(message), fingerprint(kind, ""))


def classify(error: BaseException) -> str:
    """The failure class of an exception; what nothing is known about is a bug: logic."""
    if isinstance(error, FleetError):
        return error.error_class
    if isinstance(error, MemoryError) or getattr(error, "errno", None) in _FULL:
        return "resource"
    if isinstance(error, _NETWORK):
        return "network"
    return "data" if isinstance(error, _DATA) else "logic"


def fingerprint(kind: str, place: str) -> str:
    """12 hex digits for a kind of error at a place."""
    return hashlib.sha256(f"{kind}@{place}".encode()).hexdigest()[:12]


def where(error: BaseException) -> str:
    """The last calls on the way to where it was raised, as `file:line function > …`; "" if none."""
    traceback, calls = error.__traceback__, []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        name = code.co_filename.replace("\\", "/").rpartition("/")[2]
        calls.append(f"{name}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return " > ".join(calls[1:][-CALLS:] or calls)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an error that cannot be shown is still a failure
        return ""


def _message(text: str) -> str:
    """Safe for a header and a database: no secret, no lone surrogate, not long."""
    return redact(text).encode("utf-8", "replace").decode()[:MAX_MESSAGE]


def _place(traceback: TracebackType | None) -> str:
    """Module and function where it was raised; no line, so that a release does not split groups."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return ""
    code = traceback.tb_frame.f_code
    return f"{traceback.tb_frame.f_globals.get('__name__', '')}.{code.co_qualname}"
