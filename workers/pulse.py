"""A worker's pulse: says how it does, and hears what is withheld from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog

from fleet import clock
from fleet.core.alerts import alert_event
from fleet.core.errors import FleetError, StateError
from fleet.core.events import Event
from fleet.store import controls, replicas
from fleet.store.api import Store
from fleet.store.controls import Halt
from fleet.store.presence import Presence
from fleet.store.replicas import BEAT_S
from fleet.telemetry import metrics
from workers.holds import Holds
from workers.loops import Loops
from workers.patience import until_stored
from workers.registry import Service

HEAR_S: Final = 1.0
"""How often it is asked what is withheld: all replicas obey within two seconds."""
UNTOLD_MS: Final = 10_000
"""After so long a halt is told of by whoever reads it: its own worker may have died."""

log = structlog.get_logger("fleet.workers")


class Pulse:
    """Beats every two seconds, hears every second, and never ends a worker for lack of a store.

    `look` says how the worker does; `obey` is called whenever what is withheld may have changed;
    `publish` publishes an event and returns once it is confirmed.
    """

    def __init__(
        self,
        *,
        loops: Loops,
        store: Store,
        presence: Presence,
        service: Service,
        holds: Holds,
        look: Callable[[], replicas.Pulse],
        obey: Callable[[], None],
        publish: Callable[[Event], Awaitable[None]],
    ) -> None:
        self._loops = loops
        self._store = store
        self._presence = presence
        self._service = service
        self._holds = holds
        self._look = look
        self._obey = obey
        self._publish = publish
        self._ours: set[Halt] = set()
        self._wake = asyncio.Event()
        self._said_at = 0.0
        self._telling: asyncio.Task[None] | None = None
        self._heard = controls.Controls()

    async def begin(self) -> None:
        """Take the worker's name and hear what is withheld, before anything is consumed.

        Raises SettingsError where a worker that lives has the name.
        """
        await until_stored(lambda: self._presence.take(self._look()))
        await until_stored(self._hear)
        self._gauge()

    async def run(self) -> None:
        """Beat and hear, until cancelled. Raises SettingsError where the name was taken."""
        was_away = False
        while True:
            try:
                await self._beat()
                was_away = False
            except StateError as error:
                if not was_away:
                    log.warning("what is withheld cannot be heard", reason=str(error))
                was_away = True
            try:
                async with asyncio.timeout(HEAR_S):
                    await self._wake.wait()
            except TimeoutError:
                continue
            self._wake.clear()

    def wake(self, *, say: bool = False) -> None:
        """Do it now; with `say`, say also how the worker does."""
        if say:
            self._said_at = 0.0
        self._wake.set()

    async def leave(self) -> None:
        """The worker ends: take its row away."""
        await self._presence.leave()

    async def _beat(self) -> None:
        written = self._holds.unwritten()
        for halt in written:
            if await self._store.run(partial(controls.halt, halt=halt)):
                self._ours.add(halt)
        await self._hear()
        for halt in written:  # now that it is heard: else it would not stand for a moment
            self._holds.written(halt)
        if time.monotonic() - self._said_at >= BEAT_S - HEAR_S / 2:
            self._said_at = time.monotonic()
            await self._presence.say(self._look())

    async def _hear(self) -> None:
        found = await self._store.read(lambda tx: controls.of(tx, self._service.name))
        self._holds.hear(found)
        if found != self._heard:
            self._heard = found
            self._gauge()
            log.info("withheld", pauses=len(found.pauses), halts=len(found.halts))
        self._obey()
        untold = [halt for halt in found.halts if not halt.told and self._is_ours(halt)]
        if untold and (self._telling is None or self._telling.done()):
            self._telling = self._loops.start(self._tell(untold))

    def _is_ours(self, halt: Halt) -> bool:
        """Whether we are to tell of it: it is our halt, or whose it was has not in some time."""
        return halt in self._ours or clock.now_ms() - halt.at_ms > UNTOLD_MS

    def _gauge(self) -> None:
        halted = {halt.handler for halt in self._holds.halts}
        for handler in self._service.handlers.values():
            gauge = metrics.HANDLER_HALTED.labels(self._service.name, handler.name)
            gauge.set(handler.name in halted)

    async def _tell(self, halts: list[Halt]) -> None:
        """Publish an alert for each; who dies in between leaves it to the next, under one id."""
        try:
            for halt in halts:
                await self._publish(alert(halt))
                await self._store.run(partial(controls.told, halt=halt))
        except FleetError as error:
            log.warning("an alert is not published yet", reason=str(error))


def alert(halt: Halt) -> Event:
    """The event that says that a handler is halted: of all workers the same, of each halt anew."""
    return alert_event(
        halt.agent,
        "handler_halted",
        halt.at_ms,
        key=f"{halt.service}:{halt.handler}:{halt.at_ms}",
        detail=f"{halt.handler} of {halt.service} failed in the same way again and again:"
        f" {halt.reason}. Mend it, then run"
        f" `fleet handlers release {halt.handler} --service {halt.service}`.",
    )
