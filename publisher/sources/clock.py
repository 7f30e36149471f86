"""The clock as a source: what is due becomes an event, once for the fleet."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import structlog
from cronsim import CronSim, CronSimError

from fleet import clock
from fleet.core.errors import EnvelopeError, SettingsError, StateError
from fleet.core.events import write_event
from fleet.core.payloads import LIVE_ONLY
from fleet.store import firings
from fleet.store.api import Store
from publisher.beside import OwnEvents
from publisher.schedule import BUILT_IN, Missed, Schedule

LOOK_S: Final = 1.0

log = structlog.get_logger("publisher.clock")


class Clock:
    """Publishes what is due for `agent`, while its bridge leads.

    A firing has an id made of its schedule and its time. So two bridges that both make it (the
    one lost its lease and does not know yet) make the same event, and it is handled once.
    """

    def __init__(
        self,
        own: OwnEvents,
        store: Store,
        agent: str,
        schedules: Sequence[Schedule],
        now_ms: Callable[[], int] = clock.now_ms,
    ) -> None:
        self._own = own
        self._store = store
        self._agent = agent
        self._schedules = schedules
        self._now_ms = now_ms

    def gap(self) -> None:
        """Nothing: time has no gaps."""

    async def run(self) -> None:
        """Fire what is due, for ever."""
        while True:
            try:
                await self.look()
            except StateError as error:
                log.warning("nothing fired: the store is away", reason=str(error))
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Fire what is due now. A schedule that is new counts from its first look.

        Raises StateError where the store is away; what is due then is due at the next look.
        """
        now_ms = self._now_ms()
        last = await self._store.read(lambda tx: firings.last(tx, self._agent))
        for schedule in self._schedules:
            if schedule.name not in last:
                await self._note(schedule.name, now_ms)
                continue
            for at_ms in schedule.due(last[schedule.name], now_ms):
                if schedule.name not in BUILT_IN or await self._own.wanted(schedule.type):
                    await self._own.publish(schedule.event(self._agent, at_ms))
                    log.info("fired", schedule=schedule.name, late_ms=now_ms - at_ms)
                await self._note(schedule.name, at_ms)

    async def _note(self, name: str, at_ms: int) -> None:
        await self._store.run(lambda tx: firings.note(tx, self._agent, name, at_ms))


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A schedule as a user writes it."""

    name: str
    type: str
    cron: str
    payload: dict[str, Any] = msgspec.field(default_factory=dict)
    missed: Missed = "skip"
    zone: str = "UTC"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schedule: list[_Entry] = msgspec.field(default_factory=list)


def read_schedules(path: Path) -> list[Schedule]:
    """The schedules in a TOML file, each a table `[[schedule]]`.

    Raises SettingsError, in one sentence, for what is wrong with it.
    """
    try:
        read = msgspec.convert(tomllib.loads(path.read_text("utf-8")), _File)
        made = [_schedule(entry) for entry in read.schedule]
    except OSError as error:
        raise SettingsError(f"SCHEDULES_FILE cannot be read: {error.strerror}.") from None
    except (ValueError, CronSimError, EnvelopeError, ZoneInfoNotFoundError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise SettingsError(f"SCHEDULES_FILE is wrong: {reason}.") from None
    names = [schedule.name for schedule in made]
    if twice := {name for name in names if names.count(name) > 1 or name in BUILT_IN}:
        raise SettingsError(f"SCHEDULES_FILE has a name twice: {', '.join(sorted(twice))}.")
    return made


def _schedule(entry: _Entry) -> Schedule:
    if entry.type in LIVE_ONLY:
        raise ValueError(f"{entry.type} is for the stream alone; take another type")
    zone = UTC if entry.zone == "UTC" else ZoneInfo(entry.zone)
    CronSim(entry.cron, datetime.now(zone))
    made = Schedule(
        name=entry.name,
        type=entry.type,
        cron=entry.cron,
        payload=entry.payload,
        missed=entry.missed,
        zone=zone,
    )
    write_event(made.event("a", 1_700_000_000_000))
    return made
