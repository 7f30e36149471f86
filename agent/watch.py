"""Watches how things are, and keeps every replica in the same mode.

Each replica looks once a second at what all of them have in the store, and comes to the same end.
The checkpoint's sequence number decides who writes it: a replica that was slower reads it at its
next look, so that all are in one mode within two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec
import structlog

from agent import records, state
from agent.guard import Guard
from agent.keys import close_key
from agent.modes import MODES, Health, Limits, Standing, is_below, step
from agent.state import AgentState, Kept
from fleet import clock
from fleet.core import breaker
from fleet.core.alerts import alert_event
from fleet.core.breaker import Breaker
from fleet.core.errors import FleetError, PublishError
from fleet.core.events import Event
from fleet.core.payloads import CloseRequested
from fleet.core.ulid import derived_ulid
from fleet.store import breakers, equity, lanes, positions
from fleet.store.api import Store, Tx
from fleet.store.positions import Position
from fleet.telemetry import metrics
from workers.context import Publish

EVERY_S: Final = 1.0
CHECKPOINT_MS: Final = 30_000
BREAKER_LEVELS: Final = ("closed", "half_open", "open")

log = structlog.get_logger("fleet.agent")


class Place(NamedTuple):
    """Whose state it is, and what it is measured by.

    `agent` is its name at the platform, `book` its name in the store. Its `capital` is what a
    drawdown is a fraction of.
    """

    agent: str
    book: str
    service: str
    capital: Decimal
    limits: Limits
    is_paper: bool = False


class Seen(NamedTuple):
    """What one look at the store found."""

    kept: Kept
    health: Health
    realised: Decimal
    breaker: Breaker
    held: list[Position]
    doubtful: list[Position]


class Watch:
    """The state of one agent, in one replica.

    `state` is never older than two seconds while the store can be read.
    """

    def __init__(self, place: Place, store: Store, guard: Guard, publish: Publish) -> None:
        self.state = AgentState()
        self._place = place
        self._store = store
        self._guard = guard
        self._publish = publish
        self._damage = ""
        self._asked: set[str] = set()
        self._untold: dict[str, Event] = {}

    @property
    def standing(self) -> Standing:
        """The mode, and why."""
        return self.state.standing

    async def run(self) -> None:
        """Look once a second, for ever; what goes wrong is said, and tried again.

        What is to be told is told beside that: a broker that takes nothing delays no mode.
        """
        telling: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(EVERY_S)
                await _tried(self._see(clock.now_ms()))
                if telling is None or telling.done():
                    telling = tasks.create_task(_tried(self._tell()))

    async def look(self, now_ms: int) -> Standing:
        """Read how things are, and do what follows; the standing after it.

        Raises StateError where the store is away. An event that is not confirmed is published
        again at the next look.
        """
        await self._see(now_ms)
        await self._tell()
        return self.standing

    async def _see(self, now_ms: int) -> None:
        seen = await self._store.read(lambda tx: self._read(tx, now_ms))
        self._guard.learn(seen.breaker, now_ms)
        self._complain(seen.kept)
        before = seen.kept.state
        after = AgentState(
            step(before.standing, seen.health, self._place.limits, now_ms),
            seen.health,
            seen.realised,
            len(seen.held),
        )
        was, self.state = self.state, await self._keep(seen.kept, after, now_ms)
        self._measure(now_ms)
        # Told by every replica that sees it, as one event: the one that wrote it may be dead.
        if is_below(self.standing.mode, was.standing.mode):
            alert = _alert(self._place.agent, self._place.book, self.standing)
            self._untold[alert.event_id] = alert
        asked = [_doubt(self._place.agent, one) for one in seen.doubtful]
        if self.standing.mode == "shutdown":
            asked += [self._closing(one) for one in seen.held if one.state in ("open", "closing")]
        self._ask(asked)

    def _read(self, tx: Tx, now_ms: int) -> Seen:
        place, kept = self._place, state.load(tx, self._place.book)
        gained = equity.get(tx, place.book)
        doubtful = positions.doubtful(tx, place.book)
        presumed = sum((one.presumed for one in doubtful if one.presumed), Decimal(0))
        touched_ms = lanes.touched_ms(tx, place.service)
        known = breakers.get(tx, place.book)
        health = Health(
            balance=place.capital + gained.realised
            if place.is_paper
            else records.balance(tx, place.agent),
            drawdown=gained.drawdown(place.capital, presumed),
            feed_age_s=(now_ms - touched_ms) / 1000 if touched_ms else None,
            write_api=breaker.state(known, self._guard.policy, now_ms),
        )
        held = positions.open_positions(tx, place.book)
        return Seen(kept, health, gained.realised, known, held, doubtful)

    async def _keep(self, kept: Kept, after: AgentState, now_ms: int) -> AgentState:
        """Write a state that says something new, or every 30 s; the one that stands then."""
        is_due = now_ms - kept.checkpoint.at_ms >= CHECKPOINT_MS
        if after.standing == kept.state.standing and not is_due:
            return after
        if await self._store.run(lambda tx: state.save(tx, kept, after, now_ms)):
            if after.standing.mode != kept.state.standing.mode:
                log.warning("mode", mode=after.standing.mode, reason=after.standing.reason)
            return after
        return (await self._store.read(lambda tx: state.load(tx, self._place.book))).state

    def _ask(self, events: list[Event]) -> None:
        """Have each told once, for as long as every look finds it again."""
        self._untold |= {one.event_id: one for one in events if one.event_id not in self._asked}
        self._asked = {one.event_id for one in events}

    async def _tell(self) -> None:
        while self._untold:
            event_id, event = next(iter(self._untold.items()))
            try:
                await self._publish(event)
            except PublishError as error:
                log.warning("not published yet", type=event.type, reason=str(error))
                return
            self._untold.pop(event_id, None)

    def _closing(self, position: Position) -> Event:
        """That an open position is to end; the same event from every replica."""
        since_ms = self.standing.since_ms
        # Each shutdown asks anew: that the one before failed to close it is no reason to stay.
        key = close_key(f"{position.venue_id}@{since_ms}")
        wish = CloseRequested(key, position.key, position.pair, self.standing.reason)
        return Event(
            derived_ulid(since_ms, f"order.close_requested:{key}"),
            "order.close_requested",
            self._place.agent,
            msgspec.to_builtins(wish),
            since_ms,
        )

    def _measure(self, now_ms: int) -> None:
        for mode in MODES:
            metrics.MODE.labels(mode).set(mode == self.standing.mode)
        level = BREAKER_LEVELS.index(self._guard.state(now_ms))
        metrics.BREAKER_STATE.labels(self._place.book).set(level)

    def _complain(self, kept: Kept) -> None:
        if kept.damage and kept.damage != self._damage:
            log.error("a checkpoint is refused", reason=kept.damage)
        self._damage = kept.damage


async def _tried(work: Awaitable[None]) -> None:
    try:
        await work
    except FleetError as error:
        log.warning("the agent's state cannot be kept for now", reason=str(error))
    except Exception:
        log.exception("the agent's watch stumbled")


def _alert(agent: str, book: str, standing: Standing) -> Event:
    """That the mode went down; the same event from every replica."""
    name = "shutdown" if standing.mode == "shutdown" else "mode_down"
    key = f"{book}/{standing.mode}/{standing.since_ms}"
    detail = f"{book} is in mode {standing.mode}: {standing.reason} {standing.note}".strip()
    return alert_event(agent, name, standing.since_ms, key=key, detail=detail)


def _doubt(agent: str, one: Position) -> Event:
    """That nobody knows what a position gained; the same event from every replica, for ever."""
    name = one.venue_id or "no id is known"
    detail = (
        f"what {one.pair} {one.direction} ({name}, key {one.key})"
        f" gained is not known; {one.presumed} USDC of it count as lost"
    )
    return alert_event(agent, "result_unknown", one.closed_ms, key=one.key, detail=detail)
