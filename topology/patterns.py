"""Fleet patterns: `order.requested`, `wallet.*` or `*`; on the broker `wallet.#` and `#`."""

from __future__ import annotations

import re
from typing import Final

from fleet.core.errors import TopologyError

_PATTERN: Final = re.compile(r"\*|[a-z][a-z0-9_]*\.(\*|[a-z][a-z0-9_]*)")


def binding_key(pattern: str) -> str:
    """The topic binding key of a pattern. Raises TopologyError where it is no pattern."""
    if not _PATTERN.fullmatch(pattern):
        raise TopologyError(
            f"{pattern!r} is no pattern; write an event type (order.requested), a domain (wallet.*)"
            " or * for everything."
        )
    return f"{pattern[:-1]}#" if pattern.endswith("*") else pattern


def matches(pattern: str, event_type: str) -> bool:
    """Whether events of the type are fed by the pattern."""
    if pattern.endswith("*"):
        return event_type.startswith(pattern[:-1])
    return pattern == event_type
