"""The independent witness: a stand-in platform's own ledger of what it emitted and did."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec

from fleet.audit.ids import Id, pack
from fleet.core.errors import SettingsError

TIMEOUT_S: Final = 60.0
PIECE: Final = 1 << 20


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
    """The ledger of the stand-in at `url`. Raises SettingsError where there is none."""
    event, effect = msgspec.json.Decoder(_Event).decode, msgspec.json.Decoder(_Effect).decode
    try:
        events = frozenset(
            [pack(event(line).id) async for line in _lines(f"{url}/sandbox/ledger/events")]
        )
        effects = [effect(line) async for line in _lines(f"{url}/sandbox/ledger/effects")]
    except (aiohttp.ClientError, OSError, ValueError):
        raise SettingsError(f"There is no sandbox with a ledger at {url}.") from None
    executed = Counter((each.kind, each.key) for each in effects)
    kinds = Counter(each.kind for each in effects)
    doubled = executed.total() - len(executed)
    return Ledger(events, kinds["open"], kinds["close"], doubled)


async def read_summary(url: str) -> dict[str, Any]:
    """The counts of the stand-in at `url`. Raises SettingsError where there is none."""
    try:
        async with _session() as session, session.get(f"{url}/sandbox/summary") as answer:
            answer.raise_for_status()
            return dict(await answer.json())
    except (aiohttp.ClientError, OSError, ValueError):
        raise SettingsError(f"There is no sandbox at {url}.") from None


async def _lines(url: str) -> AsyncIterator[bytes]:
    rest = b""
    async with _session() as session, session.get(url) as answer:
        answer.raise_for_status()
        async for piece in answer.content.iter_chunked(PIECE):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
