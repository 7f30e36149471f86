"""Where the parked messages of one queue are: the broker, the store, the service they belong to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, TypeAlias

from fleet import clock
from fleet.amqp.harvest import Harvest, Held, open_harvest
from fleet.amqp.looks import open_looks
from fleet.store import effects, journal
from fleet.store.api import Effect, Store, Tx
from fleet.store.journal import Key
from replay.entry import Entry, read_entry
from replay.verdict import Judge, Knowledge, Reading
from topology import names
from workers.registry import Service

MOST_BYTES: Final = 256 << 20
"""Bodies held at a time; a queue with more is gone through in several sweeps."""

Seen: TypeAlias = Callable[[Entry, Held], bool]
"""Shown each message; False: enough."""


@dataclass(frozen=True, slots=True)
class Place:
    """One queue that people look into, and all that is needed to act on it.

    `operator` is who acts, as it is written down.
    """

    url: str
    store: Store
    service: Service
    queue: str
    operator: str

    @property
    def is_unrouted(self) -> bool:
        """Whether this is the queue of what nobody wanted."""
        return self.queue == names.UNROUTED

    def harvest(self) -> AbstractAsyncContextManager[Harvest]:
        """The queue, to be held for a while."""
        return open_harvest(self.url, self.queue)

    async def look(self, seen: Seen) -> int:
        """Show `seen` each message that waits, and put all of them back; how many there were."""
        async with self.harvest() as harvest:
            return await harvest.gather(shown(seen))

    async def know(self, judge: Judge, readings: Collection[Reading]) -> Knowledge:
        """What is known now of the messages that were read."""
        keys = [(self.service.name, each.event_id) for each in readings if each.event_id]
        effect_keys = {each.effect_key for each in readings if each.effect_key}

        def ask(tx: Tx) -> tuple[dict[Key, journal.Row], dict[str, Effect]]:
            return journal.rows_of(tx, keys), effects.find(tx, effect_keys)

        rows, found = await self.store.read(ask)
        return Knowledge(
            now_ms=clock.now_ms(),
            rows={event_id: row for (_, event_id), row in rows.items()},
            effects=found,
            homes=await self._homes({judge.home(each.entry) for each in readings}),
        )

    async def _homes(self, wanted: Iterable[str]) -> frozenset[str]:
        """Those of the wanted queues that may be sent to and are there."""
        own = self._own()
        allowed = [queue for queue in wanted if queue and (self.is_unrouted or queue in own)]
        async with open_looks(self.url) as looks:
            return frozenset(await looks.depths(allowed))

    def _own(self) -> frozenset[str]:
        layout = self.service.layout()
        return frozenset((names.work_queue(layout.name), *layout.lane_queues))


def shown(seen: Seen) -> Callable[[Held], bool]:
    """Reads each message before it is shown."""

    def take(held: Held) -> bool:
        return seen(entry_of(held), held)

    return take


def entry_of(held: Held) -> Entry:
    """The entry of a message in our hands."""
    return read_entry(held.headers, held.body, exchange=held.exchange, key=held.key)
