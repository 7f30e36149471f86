"""What a worker's pulse hears while the store comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from fleet.core.errors import StateError
from fleet.core.events import Event
from fleet.store import Store, Tx, controls, open_store, replicas
from fleet.store.controls import Halt
from fleet.store.presence import Presence
from fleet.store.watched import Watched
from tests.waiting import until
from workers.context import Context
from workers.holds import Holds
from workers.loops import Loops
from workers.pulse import Pulse
from workers.registry import Service

T = TypeVar("T")


class Deaf(Watched):
    """A store that can be written and, for a while, not be read."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.asked = asyncio.Event()
        self.deaf = False

    async def read(self, query: Callable[[Tx], T]) -> T:
        """What is asked, or StateError."""
        if self.deaf:
            self.asked.set()
            raise StateError("The store is away.")
        return await super().read(query)


async def test_a_halt_stands_though_the_store_goes_away_as_it_is_written(store_url: str):
    """A handler that was halted begins nothing between the write of its halt and its hearing."""
    store = Deaf(open_store(store_url))
    await store.open()
    service = Service("svc")

    @service.handler("order.requested")
    def on_order(_: Context, __: dict[str, str]) -> None:
        """Be done."""

    async def publish(_: Event) -> None:
        """Take the alert."""

    loops, holds = Loops(), Holds(service)
    pulse = Pulse(
        loops=loops,
        store=store,
        presence=Presence(store, "worker", "w1", "svc"),
        service=service,
        holds=holds,
        look=lambda: replicas.Pulse("running"),
        obey=lambda: None,
        publish=publish,
    )
    await pulse.begin()
    store.deaf = True
    holds.halt(Halt("svc", "on_order", "f", "ValueError: odd", "w1", "a", 1_000))
    loops.start(pulse.run())
    await until(store.asked.is_set)
    assert holds.closes(is_lane=False)
    store.deaf = False
    pulse.wake()
    await until(lambda: not holds.unwritten())
    assert [each.handler for each in holds.halts] == ["on_order"]
    note = {"operator": "ada", "note": "mended", "now_ms": 2_000}
    await store.run(lambda tx: controls.release(tx, "svc", "on_order", **note))  # type: ignore[arg-type]  # by name
    await until(lambda: not holds.halts)
    await loops.stop()
    await pulse.leave()
    await store.close()
