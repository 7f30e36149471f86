"""Goes through a queue and sends planned messages home. Killed anywhere, it loses nothing.

The queue itself is the memory of a run: what was sent and acked is gone from it, and what failed
again has a higher replay count, so a second run of a plan finds nothing to do. A message that was
sent and not acked is sent again, with the same replay count, and the journal absorbs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from fleet import clock
from fleet.amqp.harvest import Held
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.signature import Keys
from replay.entry import Entry
from replay.place import MOST_BYTES, Place, shown
from replay.plan import Item, Meant
from replay.report import Report
from replay.sending import STOPPED, Edit, Parked, Progress, Sender
from replay.verdict import Judge

SWEEP_S: Final = 240.0
"""How long a sweep may hold the queue: RabbitMQ's consumer timeout is 30 minutes."""
BLOCK: Final = 1_000
"""So many are sent in the order of their ids, by the order they stand in: the acks of a block that
is done are one, however its messages were mixed, and ten thousand single ones take seconds."""


class Runner:
    """Sends items home, at most `rate` a second where that is set; `stop` ends it between two.

    `report` says what it did; what the rest of the options do, `Sender` says.
    """

    def __init__(
        self,
        place: Place,
        judge: Judge,
        publisher: ConfirmedPublisher,
        *,
        rate: float = 0,
        stop: asyncio.Event | None = None,
        edit: Edit | None = None,
        note: str = "",
        progress: Progress = lambda _: None,
        keys: Keys | None = None,
    ) -> None:
        self.report = Report()
        self._place = place
        self._judge = judge
        self._rate = rate
        self._stop = stop or asyncio.Event()
        self._sender = Sender(
            place,
            judge,
            publisher,
            self.report,
            rate=rate,
            stop=self._stop,
            edit=edit,
            note=note,
            progress=progress,
            keys=keys,
        )

    async def run(self, items: Sequence[Item]) -> None:
        """Send these. Raises BrokerError or StateError; whatever is not acked is in the queue."""
        step = max(1, int(self._rate * SWEEP_S)) if self._rate else len(items)
        for start in range(0, len(items), step):
            await self._chunk(items[start : start + step])
            if self._stop.is_set():
                self.report.stopped = self.report.stopped or "interrupted"
                return

    async def _chunk(self, items: Sequence[Item]) -> None:
        rest, is_last = list(items), False
        while rest and not is_last and not self._stop.is_set():
            found, is_last = await self._sweep(rest)
            rest = [each for each in rest if (each.id, each.replays) not in found]
        if not self._stop.is_set():
            self.report.gone += len(rest)

    async def _sweep(self, items: Sequence[Item]) -> tuple[set[tuple[str, int]], bool]:
        """Send what is found of the items; which were found, and whether the queue has no more."""
        meant, parked, size, is_last = Meant(items), list[Parked](), 0, True
        found: set[tuple[str, int]] = set()

        def seen(entry: Entry, held: Held) -> bool:
            nonlocal size, is_last
            standing = meant.standing(entry)
            if standing == "meant":
                reading = self._judge.read(entry, held.body, clock.now_ms())
                parked.append(Parked(entry, held, reading))
                size += entry.size
            elif standing == "changed":
                self.report.refused[entry.id] = "its body changed since the plan"
            if standing is not None:
                found.add((entry.id, entry.replays))
            is_last = size < MOST_BYTES
            return is_last and len(parked) < len(items)

        async with self._place.harvest() as harvest:
            await harvest.gather(shown(seen))
            for start in range(0, len(parked), BLOCK):
                block = sorted(parked[start : start + BLOCK], key=lambda each: each.entry.id)
                await self._sender.send(harvest, block)
                if self._stop.is_set():
                    self.report.leave((each.entry.id for each in parked[start + BLOCK :]), STOPPED)
                    break
        return found, is_last
