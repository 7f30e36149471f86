"""Who is at work: rows that say how each replica does."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from fleet.core.errors import SettingsError, StateError
from fleet.store import Store, presence, replicas
from fleet.store.presence import Presence
from fleet.store.replicas import Pulse, Replica, Work

RUNNING = Pulse("running", handled=3, rate=1.5, handlers={"on_tick": Work(done=3, took={4: 3})})


def replica(name: str = "w", *, instance: str = "1", at_ms: int = 1_000, **more: Any) -> Replica:
    """A replica of the service `svc`."""
    fields = {"kind": "worker", "service": "svc", "host": "h", "pid": 7, "version": "1"}
    return Replica(
        name=name, instance=instance, started_ms=1, at_ms=at_ms, pulse=RUNNING, **{**fields, **more}
    )


async def every(store: Store) -> list[Replica]:
    """All rows."""
    return await store.read(replicas.every)


async def test_what_a_replica_says_is_read_back(store: Store):
    """Each replica has one row, with what it said last."""
    first = replica()
    later = msgspec.structs.replace(first, at_ms=3_000, pulse=Pulse("draining"))
    assert await store.run(lambda tx: replicas.beat(tx, first))
    assert await every(store) == [first]
    assert await store.run(lambda tx: replicas.beat(tx, later))
    assert await every(store) == [later]


async def test_a_name_is_not_taken_from_one_that_spoke_since(store: Store):
    """Only the very row that was watched makes place; a beat in between keeps the name."""
    old, new = replica(), replica(instance="2", at_ms=9_000)
    await store.run(lambda tx: replicas.beat(tx, old))
    assert not await store.run(lambda tx: replicas.beat(tx, new))
    await store.run(lambda tx: replicas.beat(tx, msgspec.structs.replace(old, at_ms=2_000)))
    assert not await store.run(lambda tx: replicas.beat(tx, new, instead_of=old))
    spoke = (await every(store))[0]
    assert await store.run(lambda tx: replicas.beat(tx, new, instead_of=spoke))
    assert await every(store) == [new]


async def test_one_that_ends_leaves_and_takes_nobody_along(store: Store):
    """A clean end removes the own row, not that of a successor under the same name."""
    mine, successor = replica(), replica(instance="2")
    await store.run(lambda tx: replicas.beat(tx, successor))
    await store.run(lambda tx: replicas.leave(tx, mine))
    assert await every(store) == [successor]
    await store.run(lambda tx: replicas.leave(tx, successor))
    assert await every(store) == []


async def test_what_was_silent_for_a_day_is_forgotten(store: Store):
    """Rows of the killed do not gather for ever."""
    day = 86_400_000
    await store.run(lambda tx: replicas.beat(tx, replica("old", at_ms=1)))
    await store.run(lambda tx: replicas.beat(tx, replica("young", at_ms=day)))
    assert await store.run(lambda tx: replicas.prune(tx, day + 2)) == 1
    assert [each.name for each in await every(store)] == ["young"]


async def test_a_second_one_under_a_name_is_refused(store: Store):
    """While the first one lives and says so, a second process is told who has its name."""
    first, second = (Presence(store, "worker", "w", "svc") for _ in range(2))
    await first.take(RUNNING)
    taking = asyncio.create_task(second.take(RUNNING))
    while not taking.done():
        await first.say(RUNNING)
        await asyncio.sleep(0.05)
    with pytest.raises(SettingsError, match=r"Another worker works under the name w \(process"):
        await taking
    await first.leave()
    assert await every(store) == []


async def test_the_name_of_one_that_was_killed_is_free_soon(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    """A row that nobody renews does not keep a restarted process away for long."""
    monkeypatch.setattr(presence, "SILENT_S", 0.3)
    killed, next_one = (Presence(store, "worker", "w", "svc") for _ in range(2))
    await killed.take(RUNNING)
    await next_one.take(RUNNING)
    with pytest.raises(SettingsError, match="Another worker works under the name w"):
        await killed.say(RUNNING)
    await killed.leave()
    assert len(await every(store)) == 1


async def test_leaving_a_store_that_is_away_raises_nothing(store: Store):
    """The end of a process does not hang on its row."""
    mine = Presence(store, "worker", "w", "svc")
    await mine.take(RUNNING)
    await store.close()
    await mine.leave()
    with pytest.raises(StateError):
        await mine.say(RUNNING)
