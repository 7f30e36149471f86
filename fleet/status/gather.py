"""Gathers how the fleet does; a part that is away says so, and the rest goes on."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from fleet import clock
from fleet.amqp.looks import Depth, Looks, open_looks
from fleet.core.errors import FleetError
from fleet.status import queues, stored
from fleet.status.state import ServiceState, State
from fleet.status.stored import Counted, Told
from fleet.store import open_store
from fleet.store.api import Store
from fleet.store.controls import Controls
from topology import names

COUNT_EVERY_S: Final = 10.0
PATIENCE_S: Final = 5.0


class Gatherer:
    """Asks store and broker at each look, over connections that it keeps while they hold."""

    def __init__(self, store_url: str, amqp_url: str) -> None:
        self._store_url = store_url
        self._amqp_url = amqp_url
        self._store: Store | None = None
        self._looks: Looks | None = None
        self._connection = AsyncExitStack()
        self._told = Told((), (), Controls(), (), (), (), (), (), {}, {})
        self._counted = Counted()
        self._counted_at = -COUNT_EVERY_S

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._hang_up()
        if self._store is not None:
            await self._store.close()

    async def look(self) -> State:
        """How the fleet does now; raises nothing for what is away."""
        store = await self._ask_store()
        depths, broker = await self._ask_broker()
        found = None if broker else depths
        told, counted = self._told, self._counted
        return State(
            at_ms=clock.now_ms(),
            broker=broker,
            store=store,
            replicas=told.replicas,
            services=tuple(self._service(name, found) for name in told.services),
            shared=queues.shared(depths),
            leases=told.leases,
            cursors=told.cursors,
            pauses=told.controls.pauses,
            halts=told.controls.halts,
            effects=counted.effects,
            alerts=counted.alerts,
            positions=told.positions,
            doubtful=told.doubtful,
            agents=told.agents,
            breakers=told.breakers,
        )

    def _service(self, name: str, depths: dict[str, Depth] | None) -> ServiceState:
        return ServiceState(
            name=name,
            queues=None if depths is None else queues.of(name, depths, self._told.lanes),
            oldest_failed_ms=self._counted.oldest_failed_ms.get(name, 0),
            groups=self._counted.groups.get(name, ()),
        )

    async def _ask_store(self) -> str:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._hear()
        except FleetError as error:
            return str(error)
        except TimeoutError:
            return f"The store does not answer within {PATIENCE_S:g} s."
        return ""

    async def _hear(self) -> None:
        if self._store is None:
            store = open_store(self._store_url, create=False)
            await store.open()
            self._store = store
        self._told = told = await self._store.read(stored.told)
        if time.monotonic() - self._counted_at >= COUNT_EVERY_S:
            self._counted = await self._store.read(lambda tx: stored.counted(tx, told.services))
            self._counted_at = time.monotonic()

    async def _ask_broker(self) -> tuple[dict[str, Depth], str]:
        wanted = queues.wanted(self._told.services, self._told.lanes)
        try:
            async with asyncio.timeout(PATIENCE_S):
                if self._looks is None:
                    connecting = open_looks(self._amqp_url)
                    self._looks = await self._connection.enter_async_context(connecting)
                return await self._looks.depths(wanted, veiled=names.PARKED), ""
        except FleetError as error:
            trouble = str(error)
        except TimeoutError:
            trouble = f"The broker does not answer within {PATIENCE_S:g} s."
        await self._hang_up()
        return {}, trouble

    async def _hang_up(self) -> None:
        connection, self._connection, self._looks = self._connection, AsyncExitStack(), None
        await connection.aclose()
