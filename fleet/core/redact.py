"""Takes secrets out of text before it reaches a log line, a header or a person."""

from __future__ import annotations

import re

_SECRETS = (
    (re.compile(r"(pf|sk)_(live|test)_[A-Za-z0-9_.\-]+"), r"\1_\2_***"),
    (re.compile(r"(?i)(bearer|basic)\s+[A-Za-z0-9._~+/=\-]+"), r"\1 ***"),
    # Up to the last @: a password may hold one.
    (re.compile(r"(?<=://)[^\s/]+(?=@)"), "***"),
)


def redact(text: str) -> str:
    """`text` with platform keys, bearer tokens and the credentials of URLs masked."""
    for pattern, mask in _SECRETS:
        text = pattern.sub(mask, text)
    return text
