"""What the leading bridge publishes beside its source: events of its own making."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Protocol

import structlog

from fleet import clock
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.backoff import backoff
from fleet.core.envelope import event_headers
from fleet.core.errors import PublishError, PublishNacked, StateError
from fleet.core.events import Event, write_event
from fleet.core.payloads import LIVE_ONLY
from fleet.core.signature import Keys
from fleet.store import bindings, bridge
from fleet.store.api import Store
from fleet.store.bridge import ShedRow
from topology import names

NOTHING: Final[Mapping[str, Any]] = {}

log = structlog.get_logger("publisher.beside")


class Beside(Protocol):
    """Work that only the leading bridge does; it is cancelled when the term ends."""

    async def run(self) -> None:
        """Work until cancelled; what it raises ends the bridge."""
        ...

    def gap(self) -> None:
        """Hear that the source has missed something, or gave what cannot be read."""
        ...


class OwnEvents:
    """Publishes events that the bridge makes itself, under ids that are the same if made again.

    Unlike what comes from a source they have no cursor: who makes one makes it again until it is
    published.
    """

    def __init__(
        self,
        publisher: ConfirmedPublisher,
        store: Store,
        holder: str,
        *,
        partitions: int,
        keys: Keys | None = None,
    ) -> None:
        self._keys = keys
        self._publisher = publisher
        self._store = store
        self._holder = holder
        self._partitions = partitions

    async def wanted(self, event_type: str) -> bool:
        """Whether any service is fed with this type: an event that nobody wants is not made."""
        try:
            return await self._store.read(partial(bindings.wants, event_type=event_type))
        except StateError:
            return False

    async def publish(self, event: Event, headers: Mapping[str, Any] = NOTHING) -> None:
        """Return once it is confirmed, tried for as long as it takes.

        A full queue refuses what is live-only for good; then it is journalled as shed.
        """
        known = {**event_headers(event), **headers}
        is_live = event.type in LIVE_ONLY
        if is_live:
            known[names.PARTITION] = names.partition(str(event.payload["pair"]), self._partitions)
        body = write_event(event)
        if self._keys is not None:
            known = self._keys.stamped(known, body)
        for delay in backoff(random.uniform, first=0.1, cap=5.0):
            try:
                await self._publisher.publish(names.INGEST, event.type, body, headers=known)
            except PublishNacked as error:
                if is_live:
                    return await self._shed(event, str(error))
                log.warning("not published yet", type=event.type, reason=str(error))
            except PublishError as error:
                log.warning("not published yet", type=event.type, reason=str(error))
            else:
                return None
            await asyncio.sleep(delay)
        return None

    async def _shed(self, event: Event, reason: str) -> None:
        now_ms = clock.now_ms()
        row = ShedRow(event.event_id, reason, now_ms, now_ms - event.ts)
        # The log may have it: without the row it would be one that nobody accounts for.
        for delay in backoff(random.uniform, first=0.1, cap=5.0):
            try:
                await self._store.run(partial(bridge.journal_shed, rows=[row], worker=self._holder))
            except StateError as error:
                log.warning("not journalled yet", event=event.event_id, reason=str(error))
            else:
                return
            await asyncio.sleep(delay)
