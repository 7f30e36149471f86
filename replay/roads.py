"""The way home of a parked message, and what it carries. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from fleet.core.envelope import ALLOW_STALE, REPLAY_COUNT, RETRY_COUNT
from replay.entry import UNROUTED_EXCHANGE, UNROUTED_KEY, Entry, told
from replay.verdict import Judge
from topology import names

EDITED_BY = "x-edited-by"
EDITED_FROM = "x-edited-from"


class Way(NamedTuple):
    """Where to publish."""

    exchange: str
    key: str


class _Place(Protocol):
    @property
    def is_unrouted(self) -> bool: ...


def home(place: _Place, judge: Judge, entry: Entry) -> Way:
    """The way home: to the one queue where it failed, never through an exchange that fans out.

    What nobody wanted goes past the log to those that want it now: nobody else has had it.
    """
    if place.is_unrouted:
        if entry.exchange in (names.REDELIVER, names.DLX):
            return Way(entry.exchange, entry.home)
        return Way(names.EVENTS, entry.type)
    return Way(names.REDELIVER, judge.home(entry))


def headers(
    raw: Mapping[str, Any], entry: Entry, *, even_if_stale: bool, edited_by: str = ""
) -> dict[str, Any]:
    """The headers of a replay: attempts begin anew, the history stays, the replay is counted."""
    kept = {name: value for name, value in told(raw).items() if name not in _ANEW}
    kept[REPLAY_COUNT] = entry.replays + 1
    if even_if_stale:
        kept[ALLOW_STALE] = True
    if edited_by:
        kept |= {EDITED_BY: edited_by, EDITED_FROM: entry.digest}
    return kept


def unrouted(raw: dict[str, Any], entry: Entry) -> dict[str, Any]:
    """The headers, with where it was published if nobody wanted it: the fanout does not say."""
    if entry.by != "unrouted":
        return raw
    return {**raw, UNROUTED_EXCHANGE: entry.exchange, UNROUTED_KEY: entry.home}


def digest(body: bytes) -> str:
    """What tells one body from another."""
    return hashlib.sha256(body).hexdigest()


_ANEW = frozenset({REPLAY_COUNT, RETRY_COUNT, ALLOW_STALE, UNROUTED_EXCHANGE, UNROUTED_KEY})
