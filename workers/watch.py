"""Watches what a worker lives on: memory, the disk of its store, and the store itself.

A worker that runs out of memory is killed in the middle of something, and a store whose disk is
full fails in the middle of something. Before that the worker tells a person, hands back what it has
only prefetched, finishes the rest and ends, so that its supervisor starts it anew.
"""

from __future__ import annotations

import asyncio
import platform
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import psutil
import structlog

from fleet import clock
from fleet.core.alerts import TYPE, alert_event
from fleet.core.errors import FleetError, ResourceError
from fleet.store import bindings
from fleet.store.watched import Watched
from workers.context import Publish
from workers.settings import WorkerSettings

LOOK_S: Final = 2.0
TELL_S: Final = 5.0
MB: Final = 1 << 20
PART: Final = 0.9
"""The part of what the machine or its container has that a worker may take, if not told else."""
CGROUPS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)

log = structlog.get_logger("fleet.workers")


class Bounds(NamedTuple):
    """Bytes of memory that may be taken, bytes of disk that must be free; 0: no bound.

    `folder` is where the store's file is, None where it is a server's. A store that is away for
    `store_s` seconds is told of.
    """

    memory: int = 0
    disk: int = 0
    folder: Path | None = None
    store_s: float = 30.0


class Trouble(NamedTuple):
    """The alert's name, and what is wrong, as a sentence."""

    name: str
    sentence: str


def bounds(settings: WorkerSettings, folder: Path | None) -> Bounds:
    """The bounds that the settings ask for; 0 MB of memory: nine tenths of what there is."""
    asked = settings.watch_memory_mb * MB
    disk = settings.watch_disk_free_mb * MB if folder else 0
    return Bounds(asked or int(_memory() * PART), disk, folder, settings.watch_store_s)


def find(limits: Bounds, used: int, free: int) -> Trouble | None:
    """What ends a worker that uses so many bytes of memory, with so many free on its disk."""
    if limits.memory and used > limits.memory:
        reason = f"it takes {used // MB} MB of memory; {limits.memory // MB} MB are allowed"
        return Trouble("memory_high", reason)
    if limits.disk and free < limits.disk:
        reason = f"{free // MB} MB are free on the disk of the store; it needs {limits.disk // MB}"
        return Trouble("disk_full", reason)
    return None


class Watch:
    """Looks every two seconds, in a worker of `service` over `store`."""

    def __init__(self, limits: Bounds, service: str, store: Watched, publish: Publish) -> None:
        self._limits = limits
        self._service = service
        self._store = store
        self._publish = publish
        self._process = psutil.Process()
        self._away_s = 0.0

    async def run(self) -> None:
        """Look for ever. Raises ResourceError, once it is told, where the worker has to end."""
        while True:
            trouble = find(self._limits, self._process.memory_info().rss, self._free())
            if trouble is not None:
                await self._tell(trouble)
                raise ResourceError(f"The worker ends, to be started anew: {trouble.sentence}.")
            await self._look_at_store()
            await asyncio.sleep(LOOK_S)

    def _free(self) -> int:
        if not self._limits.disk or self._limits.folder is None:
            return 0
        return psutil.disk_usage(str(self._limits.folder)).free

    async def _look_at_store(self) -> None:
        """Tell once of a store that stays away."""
        before, trouble = self._away_s, self._store.trouble
        self._away_s = before + LOOK_S if trouble else 0.0
        if before < self._limits.store_s <= self._away_s:
            await self._tell(Trouble("store_away", trouble))

    async def _tell(self, trouble: Trouble) -> None:
        """Say it in the log, and as an alert if anybody handles those; wait no longer than 5 s."""
        log.error(trouble.name, reason=trouble.sentence)
        host = platform.node()
        event = alert_event(
            self._service,
            trouble.name,
            clock.now_ms(),
            key=host,
            detail=f"{host}: {trouble.sentence}",
        )
        try:
            async with asyncio.timeout(TELL_S):
                if trouble.name == "store_away" or await self._is_wanted():
                    await self._publish(event)
        except (FleetError, TimeoutError) as error:
            log.warning("nobody could be alerted", reason=str(error) or "no answer")

    async def _is_wanted(self) -> bool:
        return await self._store.read(partial(bindings.wants, event_type=TYPE))


def _memory() -> int:
    """What the machine has, or its container may have."""
    found = [psutil.virtual_memory().total]
    for path in CGROUPS:
        try:
            text = path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text.isdigit():  # "max": no bound of its own
            found.append(int(text))
    return min(found)
