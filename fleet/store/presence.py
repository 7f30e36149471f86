"""A replica's presence: its row in the store, from the start of a process to its end."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from functools import partial
from importlib.metadata import version
from typing import Final

import msgspec
import structlog

from fleet import clock
from fleet.core.errors import SettingsError, StateError
from fleet.store import replicas
from fleet.store.api import Store
from fleet.store.replicas import SILENT_S, Kind, Pulse, Replica

LONG_GONE_MS: Final = 60_000
"""Whoever was silent for so long is dead, however far two clocks are apart."""
LOOK_S: Final = 0.25
LEAVE_S: Final = 2.0

log = structlog.get_logger("fleet.presence")


class Presence:
    """The row of one process under `name`, until `leave`.

    Every method but `leave` raises StateError while the store is away; the row then shows when
    this replica was last heard.
    """

    def __init__(self, store: Store, kind: Kind, name: str, service: str) -> None:
        self._store = store
        self._taken = False
        now_ms = clock.now_ms()
        self._replica = Replica(
            kind=kind,
            name=name,
            instance=secrets.token_hex(8),
            service=service,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=version("flea-fleet"),
            started_ms=now_ms,
            at_ms=now_ms,
            pulse=Pulse("unready"),
        )

    async def take(self, pulse: Pulse) -> None:
        """Take the name. Raises SettingsError where another one that lives has it.

        One that was killed leaves its row behind: it is watched for six seconds, and makes place
        if it says nothing. Its own clock is not trusted with that, only whether it moves.
        """
        await self._store.run(partial(replicas.prune, now_ms=clock.now_ms()))
        self._taken = True  # from here on: whoever is stopped amid it may have it already
        if not await self._beat(pulse):
            other = await self._other()
            await self._watched(other)
            if not await self._beat(pulse, instead_of=other):
                raise self._twice(await self._other())

    async def say(self, pulse: Pulse) -> None:
        """Say how it does. Raises SettingsError where another process took the name."""
        if not await self._beat(pulse):
            self._taken = False
            raise self._twice(await self._other())

    async def leave(self) -> None:
        """Take the row away; raises nothing."""
        if not self._taken:
            return
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._store.run(partial(replicas.leave, replica=self._replica))
        except (StateError, TimeoutError) as error:
            log.debug("the row of this replica stays", reason=str(error) or "no answer")

    async def _beat(self, pulse: Pulse, instead_of: Replica | None = None) -> bool:
        said = msgspec.structs.replace(self._replica, at_ms=clock.now_ms(), pulse=pulse)
        return await self._store.run(partial(replicas.beat, replica=said, instead_of=instead_of))

    async def _other(self) -> Replica | None:
        mine = self._replica
        return await self._store.read(partial(replicas.under, kind=mine.kind, name=mine.name))

    async def _watched(self, other: Replica | None) -> None:
        """Return once `other` has been silent for long. Raises SettingsError where it speaks."""
        if other is None or clock.now_ms() - other.at_ms > LONG_GONE_MS:
            return
        log.warning(
            "another one had this name; waiting to see whether it lives",
            name=other.name,
            host=other.host,
            pid=other.pid,
            seconds=SILENT_S,
        )
        until = time.monotonic() + SILENT_S
        while time.monotonic() < until:
            await asyncio.sleep(LOOK_S)
            found = await self._other()
            if found is None:
                return
            if (found.instance, found.at_ms) != (other.instance, other.at_ms):
                raise self._twice(found)

    def _twice(self, other: Replica | None) -> SettingsError:
        where = f" (process {other.pid} on {other.host})" if other else ""
        return SettingsError(
            f"Another {self._replica.kind} works under the name {self._replica.name}{where};"
            " give each its own WORKER_NAME, or none."
        )
