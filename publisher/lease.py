"""One bridge per agent: a lease in the store, with an epoch."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import structlog

from fleet import clock
from fleet.core.errors import StateError
from fleet.store import leases
from fleet.store.api import Lease, Store

log = structlog.get_logger("publisher.lease")


class Leadership:
    """The right to publish for one source, as `holder`, renewed each third of `ttl_s`.

    `held` turns false by this process's own clock once the term is over, whether or not the store
    can be asked: whoever cannot renew has lost it.
    """

    def __init__(self, store: Store, name: str, holder: str, *, ttl_s: float = 5.0) -> None:
        self._store = store
        self._name = name
        self._holder = holder
        self._ttl_s = ttl_s
        self._until = 0.0
        self._lease: Lease | None = None
        self._lost = asyncio.Event()

    @property
    def held(self) -> bool:
        """Whether this process may publish now."""
        return self._lease is not None and time.monotonic() < self._until

    async def take(self) -> Lease:
        """Stand by until the lease is ours."""
        standing_by = False
        while True:
            lease = await self._ask()
            if lease is not None:
                log.info("lease taken", lease=self._name, epoch=lease.epoch)
                return lease
            if not standing_by:
                log.info("standing by: another bridge has the lease", lease=self._name)
                standing_by = True
            await asyncio.sleep(min(self._ttl_s / 3, 0.5))

    async def keep(self) -> None:
        """Renew for as long as it is ours; return once it is lost."""
        while self.held:
            try:
                async with asyncio.timeout(self._ttl_s / 3):
                    await self._lost.wait()
            except TimeoutError:
                await self.renew()
        log.warning("lease lost", lease=self._name)

    async def renew(self) -> None:
        """Ask for a new term; without an answer the present one runs on to its end."""
        lease = self._lease
        if lease is None:
            return
        asked, left_s = time.monotonic(), self._until - time.monotonic()
        try:
            async with asyncio.timeout(max(left_s, 0.0)):
                work = partial(
                    leases.renew, lease=lease, now_ms=clock.now_ms(), ttl_ms=self._ttl_ms
                )
                self._lease = await self._store.run(work)
        except (StateError, TimeoutError) as error:
            log.warning("lease not renewed", lease=self._name, reason=str(error) or "no answer")
            return
        self._until = asked + self._ttl_s
        if self._lease is None:
            self._lost.set()

    async def release(self) -> None:
        """Give the lease up, so that the next bridge need not wait for its end."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            async with asyncio.timeout(self._ttl_s):
                await self._store.run(partial(leases.release, lease=lease))
        except (StateError, TimeoutError) as error:
            log.warning("lease not released", lease=self._name, reason=str(error) or "no answer")

    @property
    def _ttl_ms(self) -> int:
        return round(self._ttl_s * 1000)

    async def _ask(self) -> Lease | None:
        asked = time.monotonic()
        work = partial(
            leases.acquire,
            name=self._name,
            holder=self._holder,
            now_ms=clock.now_ms(),
            ttl_ms=self._ttl_ms,
        )
        try:
            self._lease = await self._store.run(work)
        except StateError as error:
            log.warning("lease not to be had", lease=self._name, reason=str(error))
            return None
        self._until = asked + self._ttl_s
        self._lost.clear()
        return self._lease
