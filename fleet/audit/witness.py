"""The independent witness: a stand-in platform's own ledger of what it emitted and did."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec

from fleet.audit.ids import Id, pack_if_ulid
from fleet.core.errors import SettingsError
from fleet.core.redact import redact

TIMEOUT_S: Final = 60.0
PIECE: Final = 1 << 20
LONGEST: Final = 1 << 16
JSON_LINES: Final = "application/x-ndjson"


class _Event(msgspec.Struct, gc=False):
    id: str


class _Effect(msgspec.Struct, gc=False):
    kind: str
    key: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the witness says."""

    events: frozenset[Id]
    opened: int
    closed: int
    duplicated: int
    """Executions beyond the first of one effect key."""


async def read_ledger(url: str) -> Ledger:
    """The ledger of the stand-in at `url`. Raises SettingsError where there is none.

    A page of anybody else, or a ledger that breaks off, is no ledger: it must not agree by chance.
    """
    base, effect = url.rstrip("/"), msgspec.json.Decoder(_Effect).decode
    try:
        events = frozenset([_id(line) async for line in _lines(f"{base}/sandbox/ledger/events")])
        effects = [effect(line) async for line in _lines(f"{base}/sandbox/ledger/effects")]
    except (aiohttp.ClientError, OSError, ValueError):
        raise SettingsError(f"There is no sandbox with a ledger at {redact(url)}.") from None
    executed = Counter((each.kind, each.key) for each in effects)
    kinds = Counter(each.kind for each in effects)
    doubled = executed.total() - len(executed)
    return Ledger(events, kinds["open"], kinds["close"], doubled)


async def read_summary(url: str) -> dict[str, Any]:
    """The counts of the stand-in at `url`. Raises SettingsError where there is none."""
    page = f"{url.rstrip('/')}/sandbox/summary"
    try:
        async with _session() as session, session.get(page) as answer:
            answer.raise_for_status()
            return dict(await answer.json())
    except (aiohttp.ClientError, OSError, ValueError):
        raise SettingsError(f"There is no sandbox at {redact(url)}.") from None


_event: Final = msgspec.json.Decoder(_Event).decode


def _id(line: bytes) -> Id:
    event = pack_if_ulid(_event(line).id)
    if event is None:
        raise ValueError("no event's id")
    return event


async def _lines(url: str) -> AsyncIterator[bytes]:
    rest = b""
    async with _session() as session, session.get(url) as answer:
        answer.raise_for_status()
        if answer.content_type != JSON_LINES:
            raise ValueError("a page of something else")
        async for piece in answer.content.iter_chunked(PIECE):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line
            if len(rest) > LONGEST:
                raise ValueError("no lines")
    if rest:
        raise ValueError("breaks off within a line")


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
