"""Orders treated as the runtime treats them, without a broker: claim, handle, commit.

Run as a program it is one replica of a race: it orders every pair of the venue, and reports.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from decimal import Decimal
from typing import Any

import msgspec

from agent.desk import Desk, open_desk
from agent.handlers import service
from agent.keys import trade_key
from agent.settings import AgentSettings
from fleet import clock
from fleet.core.decision import Ack, Decision, Expire, Fail, Postpone
from fleet.core.envelope import Headers
from fleet.core.events import Event
from fleet.core.payloads import OrderRequested
from fleet.core.ulid import make_ulid
from fleet.store import Candidate, Claim, Settled, open_store
from workers.context import Context, Startup
from workers.effects import outcome_of
from workers.intake import _sound
from workers.job import Job
from workers.middleware import compose
from workers.process import effecting, judge, process

AGENT = "pf_agent_sandbox"
HOLD_MS = 50_000
OUTCOMES = {Ack: "done", Expire: "expired", Fail: "failed"}


def now() -> int:
    """The wall clock in milliseconds."""
    return clock.now_ms()


def order(pair: str, direction: str, ts_ms: int, **more: Any) -> OrderRequested:
    """An order as the tick handler makes them."""
    fields = {
        "size_usdc": Decimal(50),
        "leverage": Decimal(3),
        "timestamp_ms": ts_ms,
        "key": trade_key(AGENT, pair, direction, ts_ms),
        **more,
    }
    return OrderRequested(pair=pair, direction=direction, **fields)


def event_of(payload: msgspec.Struct, kind: str = "order.requested", ts: int = 0) -> Event:
    """A new event with this payload."""
    ts = ts or now()
    fields = msgspec.to_builtins(payload, builtin_types=(Decimal,))
    return Event(make_ulid(ts, os.urandom(10)), kind, AGENT, fields, ts)


class Post:
    """Keeps what is published from outside of a handler; `events` by id, as journals do."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}

    async def publish(self, event: Event) -> None:
        """Keep an event."""
        self.events[event.event_id] = event


class Runner:
    """One replica: `decisions` are what its deliveries ended with, `emitted` what they emitted."""

    def __init__(self, desk: Desk, name: str = "worker-1") -> None:
        self.desk = desk
        self.name = name
        self.decisions: list[Decision] = []
        self.emitted: list[Event] = []
        self._service = service(desk.settings, desk.world.settings)
        self._count = itertools.count()

    async def run(
        self, event: Event, *, attempt: int = 1, replay: int = 0, at: int = 0, crash: bool = False
    ) -> Decision:
        """Deliver `event` at a time; with `crash` the worker dies before it commits."""
        at = at or now()
        job = Job(None, Headers(attempt, replay))  # type: ignore[arg-type]  # nobody settles it
        job.event, job.handler = event, self._service.find(event.type)
        assert job.handler is not None
        job.payload = job.handler.read(event)
        job.standing = await self._admit(job, at)
        if job.standing.seen:
            return Ack(skipped="seen")
        job.decision = judge(job, at)
        if job.decision is None:
            job.context = self._context(job, at)
            job.decision = await process(job, job.context, compose([]))
        if not crash:
            await self._commit(job, at)
        self.decisions.append(job.decision)
        if job.context is not None and isinstance(job.decision, Ack):
            self.emitted += job.context.emitted
        return job.decision

    async def chain(self, event: Event) -> list[tuple[str, Decision]]:
        """Deliver an event and all that comes of it; types and decisions, in order."""
        told, waiting = [], [event]
        while waiting:
            one = waiting.pop(0)
            before = len(self.emitted)
            told.append((one.type, await self.until_done(one)))
            waiting += self.emitted[before:]
        return told

    async def until_done(self, event: Event) -> Decision:
        """Deliver it again and again, as retries and postponements do, without their delays."""
        attempt = 1
        async with asyncio.timeout(120):
            while True:
                decision = await self.run(event, attempt=attempt)
                if isinstance(decision, Ack | Fail | Expire):
                    return decision
                attempt += not isinstance(decision, Postpone)
                await asyncio.sleep(0.01)

    async def _admit(self, job: Job, at: int) -> Any:
        claim = None
        if job.handler.key:
            holder = f"{self.name}/{next(self._count)}"
            key = _sound(job.handler.key(job.payload))
            claim = Claim(key, job.event.type, holder, at + HOLD_MS)
        wish = Candidate("trading.agent", job.event.event_id, job.headers.replay_count, claim)
        return (await self.desk.store.admit([wish], at))[0]

    def _context(self, job: Job, at: int) -> Context:
        return Context(
            job.event,
            attempt=job.headers.attempt,
            is_replay=job.headers.replay_count > 0,
            now_ms=at,
            worker=self.name,
            app=self.desk,
            effect=effecting(job),
        )

    async def _commit(self, job: Job, at: int) -> None:
        context, decision = job.context, job.decision
        entry = Settled(
            service="trading.agent",
            event_id=job.event.event_id,
            outcome=OUTCOMES.get(type(decision), ""),
            attempt=job.headers.attempt,
            worker=self.name,
            at_ms=at,
            replay_count=job.headers.replay_count,
            writes=tuple(context.writes) if context and isinstance(decision, Ack) else (),
            effect=outcome_of(context.effect, decision) if context and context.effect else None,
        )
        verdict = (await self.desk.store.commit([entry]))[0]
        if isinstance(verdict, Exception):
            raise verdict


async def race(api_url: str, store_url: str, name: str, pairs: list[str], start_ms: int) -> None:
    """Order every pair both ways, minute after minute, as fast as possible."""
    settings = AgentSettings(
        api_url=api_url, agent_id=AGENT, agent_key="pf_live_sandbox", order_max_age_s=60
    )
    store = open_store(store_url)
    await store.open()
    async with open_desk(settings, Startup(store, name, Post().publish)) as desk:
        runner = Runner(desk, name)
        for minute, pair in itertools.product(range(4), pairs):
            way = "short" if (minute + len(name)) % 2 else "long"
            wish = order(pair, way, start_ms + minute * 60_000)
            await runner.until_done(event_of(wish))
        sys.stdout.write(" ".join(type(decision).__name__ for decision in runner.decisions))
    await store.close()


if __name__ == "__main__":
    asyncio.run(
        race(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4].split(","), int(sys.argv[5]))
    )
