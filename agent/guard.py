"""The venue's breaker, shared by all replicas: one opens it for all, and one probes for all."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fleet import clock
from fleet.core import breaker
from fleet.core.breaker import CLOSED, Breaker, BreakerPolicy, BreakerState
from fleet.core.errors import ApiError, NetworkError, NotNowError, PermanentError
from fleet.store import breakers
from fleet.store.api import Store

FRESH_MS: Final = 1000
"""So old may be what we believe of a closed breaker; more than that costs a read."""


class Guard:
    """Stands before the venue's write API. `holder` in every call says whose it is."""

    def __init__(self, store: Store, name: str, policy: BreakerPolicy) -> None:
        self._store = store
        self._name = name
        self.policy = policy
        self._known = CLOSED
        self._read_ms = 0

    @asynccontextmanager
    async def call(self, holder: str, now_ms: int) -> AsyncIterator[None]:
        """Let one call of the venue through, and learn from how it ends, dated when it ends.

        Raises NotNowError where it must wait; then nothing was called. No answer and a server
        error are failures; a refusal, and being put off, are answers of a venue that is well.
        """
        # A holder comes back under its name, perhaps while its last request is still on its way
        # (its worker died, or lost its channel); that would be a second probe.
        caller = f"{holder} {uuid.uuid4().hex}"
        await self._ask(caller, now_ms)
        try:
            yield
        except (NetworkError, ApiError):
            await self._failed(caller, max(now_ms, clock.now_ms()))
            raise
        except (NotNowError, PermanentError):
            await self._succeeded(caller, now_ms)
            raise
        except (Exception, asyncio.CancelledError):
            await self._change(lambda now: breaker.withdrawn(now, caller), now_ms)
            raise
        await self._succeeded(caller, now_ms)

    def state(self, now_ms: int) -> BreakerState:
        """What is believed of the venue's write API."""
        return breaker.state(self._known, self.policy, now_ms)

    def learn(self, known: Breaker, now_ms: int) -> None:
        """Take over what was just read from the store."""
        self._known, self._read_ms = known, now_ms

    async def _ask(self, caller: str, now_ms: int) -> None:
        if now_ms - self._read_ms > FRESH_MS:
            known = await self._store.read(lambda tx: breakers.get(tx, self._name))
            self.learn(known, now_ms)
        if self.state(now_ms) == "closed":
            return
        turn = breaker.ask(self._known, caller, self.policy, now_ms)
        if not turn.wait_ms:
            # It looks as if we may probe: the store says who really does.
            turn = await self._store.run(
                lambda tx: breakers.take_turn(tx, self._name, caller, self.policy, now_ms)
            )
            self.learn(turn.breaker, now_ms)
        if turn.wait_ms:
            raise NotNowError("the venue's breaker is open", retry_after=turn.wait_ms / 1000)

    async def _failed(self, caller: str, now_ms: int) -> None:
        await self._change(lambda now: breaker.failed(now, caller, self.policy, now_ms), now_ms)

    async def _succeeded(self, caller: str, now_ms: int) -> None:
        # A venue that is well costs no write: there is nothing to forget.
        if self._known != CLOSED:
            await self._change(lambda now: breaker.succeeded(now, caller), now_ms)

    async def _change(self, rule: breakers.Rule, now_ms: int) -> None:
        now = await self._store.run(lambda tx: breakers.change(tx, self._name, rule))
        self.learn(now, now_ms)
