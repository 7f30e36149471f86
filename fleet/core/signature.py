"""Signatures of events: who lacks the key cannot make one that workers believe.

`x-signature: KEYID:HEX`, the HMAC-SHA256 (RFC 2104) over the version, the headers `x-event-id` and
`x-event-type`, and the body's bytes as they are, each but the last with a newline behind it.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from fleet.core.envelope import EVENT_ID, EVENT_TYPE
from fleet.core.errors import DataError

SIGNATURE: Final = "x-signature"
SHORTEST: Final = 32
"""Characters that a key has at least; 32 random hex digits are 128 bits."""
_VERSION: Final = b"flea-fleet 1\n"
_ID: Final = re.compile(r"[A-Za-z0-9_.\-]{1,32}\Z")


class Key(NamedTuple):
    """A secret, and the name under which a signature says that it was made with it."""

    id: str
    secret: bytes

    def __repr__(self) -> str:
        """Its id alone."""
        return f"Key({self.id})"

    @classmethod
    def read(cls, text: str) -> Key:
        """The key in `ID:SECRET`. Raises DataError, which does not repeat it."""
        name, colon, secret = text.strip().partition(":")
        if not (colon and _ID.match(name) and len(secret) >= SHORTEST and secret.isascii()):
            raise DataError(f"write ID:SECRET, with {SHORTEST} random characters or more")
        return cls(name, secret.encode())


class Keys:
    """Signs with one key, and believes that one and `others`."""

    def __init__(self, signing: Key, others: Sequence[Key] = ()) -> None:
        self._signing = signing
        self._secrets = {key.id: key.secret for key in (*others, signing)}

    def stamped(self, headers: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        """The headers with the signature over them and `body`, in place of any before."""
        digest = _digest(self._signing.secret, headers, body)
        return {**headers, SIGNATURE: f"{self._signing.id}:{digest}"}

    def trouble(self, headers: Mapping[str, Any], body: bytes) -> str:
        """Why the signature in `headers` is not believed; "" where it is."""
        signature = headers.get(SIGNATURE)
        if not isinstance(signature, str):
            return "it is not signed"
        name, _, digest = signature.partition(":")
        secret = self._secrets.get(name)
        if secret is None:
            return "its signature names no key that is known here"
        expected = _digest(secret, headers, body).encode()
        if not hmac.compare_digest(digest.encode("utf-8", "replace"), expected):
            return "its signature is wrong"
        return ""


def _digest(secret: bytes, headers: Mapping[str, Any], body: bytes) -> str:
    named = f"{headers.get(EVENT_ID, '')}\n{headers.get(EVENT_TYPE, '')}\n"
    octets = b"".join((_VERSION, named.encode("utf-8", "replace"), body))
    return hmac.digest(secret, octets, "sha256").hex()
