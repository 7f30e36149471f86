"""Whatever goes wrong and in whatever order: in the end the book and the venue agree."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from agent.keys import trade_key
from fleet.core.decision import Ack, Expire, Fail
from fleet.core.events import Event
from fleet.store import Store, positions

FINAL = (Ack, Expire, Fail)
STEPS = 60


class Story:
    """Orders, redeliveries, crashes and faults by chance, on a clock of its own."""

    def __init__(self, floor: SimpleNamespace, sandbox: Any, runner: Any, seed: int) -> None:
        self._floor = floor
        self._sandbox = sandbox
        self._runner = runner
        self._chance = random.Random(seed)  # noqa: S311 - weather, not secrets
        self.clock = floor.now()
        self.waiting: list[Event] = []

    async def step(self) -> None:
        """One delivery, of a new order or of one that waits, in whatever weather."""
        self.clock += self._chance.choice((100, 2_000, 30_000))
        rates = self._sandbox._faults._rates
        for fault in ("errors", "lost_answers"):
            rates[fault] = self._chance.choice((0.0, 0.0, 0.3, 0.5))
        if self.waiting and self._chance.random() < 0.6:
            event = self.waiting.pop(self._chance.randrange(len(self.waiting)))
        else:
            event = self._order()
        await self._deliver(event, crash=self._chance.random() < 0.2)

    async def settle(self) -> None:
        """Deliver all that waits, without faults, until nothing does."""
        self._sandbox._faults._rates.update(errors=0.0, lost_answers=0.0)
        for _ in range(20):
            self.clock += 70_000
            waiting, self.waiting = self.waiting, []
            for event in waiting:
                await self._deliver(event, crash=False)
        assert self.waiting == []

    def _order(self) -> Event:
        pair, way = self._chance.choice(self._floor.PAIRS), self._chance.choice(("long", "short"))
        at = self.clock - self._chance.choice((0, 0, 90_000))
        return self._floor.event_of(self._floor.order(pair, way, at), ts=self.clock)

    async def _deliver(self, event: Event, *, crash: bool) -> None:
        # Always the first attempt: what ran out of them would wait for a person to replay it.
        decision = await self._runner.run(event, at=self.clock, crash=crash)
        if crash or not isinstance(decision, FINAL):
            self.waiting.append(event)


@pytest.mark.parametrize("idempotency", [True, False])
@pytest.mark.parametrize("seed", range(8))
async def test_book_and_venue_agree_in_the_end(
    floor: SimpleNamespace, sandbox: Any, desk: Any, *, store: Store, seed: int, idempotency: bool
) -> None:
    """Same positions, at most three, none twice for a key, nothing left reserved or closing."""
    venue = await sandbox(seed=seed, idempotency=idempotency)
    here = await desk(venue.url)
    story = Story(floor, venue, floor.Runner(here), seed)
    for _ in range(STEPS):
        await story.step()
        assert len(await here.venue.positions()) <= 3
    await story.settle()
    book = await store.read(lambda tx: positions.open_positions(tx, floor.AGENT))
    listed = await here.venue.positions()
    assert {one.state for one in book} <= {"open"}
    assert {(one.pair, one.direction, one.venue_id) for one in book} == {
        (one.pair, one.direction, one.position_id) for one in listed
    }
    assert venue.ledger.summary()["keys_executed_twice"] == 0
    opened = [one for one in venue.ledger._effects if one.kind == "open"]
    assert opened, "something was traded"
    assert {len(one.key) for one in opened} == {len(trade_key("a", "b", "long", 1))}
