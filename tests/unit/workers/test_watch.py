"""What a worker lives on: told before it is gone, and the worker ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fleet.core.errors import PublishUnknown, ResourceError
from fleet.core.events import Event
from fleet.store import bindings, open_store
from fleet.store.watched import Watched
from workers.settings import WorkerSettings
from workers.watch import MB, Bounds, Watch, bounds, find

HUGE = 1 << 60


@pytest.mark.parametrize(
    ("limits", "used", "free", "name"),
    [
        (Bounds(memory=100, disk=50), 100, 50, ""),
        (Bounds(memory=100, disk=50), 101, 50, "memory_high"),
        (Bounds(memory=100, disk=50), 100, 49, "disk_full"),
        (Bounds(), HUGE, 0, ""),
    ],
)
def test_what_ends_a_worker(limits: Bounds, used: int, free: int, name: str):
    """More memory than allowed, less disk than needed; without a bound nothing does."""
    found = find(limits, used, free)
    assert (found.name if found else "") == name


def test_the_bounds_are_the_settings(tmp_path: Path):
    """Told in MB; untold memory is a part of what there is, and a server's disk is its own."""
    told = WorkerSettings(watch_memory_mb=7, watch_disk_free_mb=3)
    assert bounds(told, tmp_path) == Bounds(7 * MB, 3 * MB, tmp_path, 30.0)
    assert bounds(told, None).disk == 0
    assert 0 < bounds(WorkerSettings(), None).memory < HUGE


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    """A store that somebody handles alerts over; it may be slow to say so."""
    monkeypatch.setattr("workers.watch.TELL_S", 60.0)
    store = Watched(open_store(f"sqlite:///{tmp_path}/fleet.db"))
    await store.open()
    await store.run(lambda tx: bindings.record(tx, "mine", ["alert.raised"], 0))
    yield store
    await store.close()


@pytest.mark.parametrize("refuses", [False, True])
async def test_it_tells_and_then_it_ends(store: Watched, tmp_path: Path, refuses: bool):
    """One alert, with the reason; it ends as well where nobody can be told."""
    told: list[Event] = []

    async def publish(event: Event) -> None:
        told.append(event)
        if refuses:
            raise PublishUnknown

    limits = Bounds(disk=HUGE, folder=tmp_path)
    with pytest.raises(ResourceError, match=r"MB are free on the disk of the store"):
        await Watch(limits, "mine", store, publish).run()
    (event,) = told
    assert (event.type, event.payload["name"]) == ("alert.raised", "disk_full")
    assert "MB are free" in event.payload["detail"]


async def test_without_anybody_who_handles_alerts_only_the_log_tells(
    store: Watched, tmp_path: Path
):
    """An alert that nobody binds would lie unrouted."""
    await store.run(lambda tx: bindings.record(tx, "mine", ["a.b"], 0))

    async def publish(_: Any) -> None:
        raise AssertionError("nobody wants it")

    with pytest.raises(ResourceError):
        await Watch(Bounds(memory=1, folder=tmp_path), "mine", store, publish).run()


async def test_a_store_that_stays_away_is_told_of_once(
    store: Watched, monkeypatch: pytest.MonkeyPatch
):
    """Not at once, and not again and again; the worker lives on."""
    monkeypatch.setattr("workers.watch.LOOK_S", 0.01)
    told: list[Event] = []
    again = asyncio.Event()

    async def publish(event: Event) -> None:
        told.append(event)
        again.set()

    watch = asyncio.create_task(Watch(Bounds(store_s=0.03), "mine", store, publish).run())
    try:
        store._trouble = "the disk is full"
        await asyncio.wait_for(again.wait(), 60)
        store._trouble = ""
        await asyncio.sleep(0.1)
        again.clear()
        store._trouble = "the disk is full again"
        await asyncio.wait_for(again.wait(), 60)
    finally:
        watch.cancel()
    assert [event.payload["name"] for event in told] == ["store_away"] * 2
    assert told[0].payload["detail"].endswith("the disk is full")
