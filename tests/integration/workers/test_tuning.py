"""`PREFETCH=auto`: quick handlers have much in hand, slow ones leave the rest to others."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import Any

import pytest

from topology import names
from workers import tuning
from workers.context import Context
from workers.registry import Service
from workers.settings import AUTO_MOST


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look ten times a second, so that a test need not wait."""
    monkeypatch.setattr(tuning, "LOOK_S", 0.1)


async def publish(bench: Any, count: int) -> None:
    """So many events, confirmed."""
    for first in range(0, count, 100):
        last = min(first + 100, count)
        events = [bench.event("test.work", {"number": n}) for n in range(first, last)]
        await asyncio.gather(*map(bench.publish, events))


async def test_a_slow_worker_leaves_work_to_one_that_comes(bench: Any, service: Service):
    """A replica that is started late has something to do: the first did not take it all."""
    by: Counter[str] = Counter()
    come = asyncio.Event()

    @service.handler("test.work", deadline=600)
    async def slow(context: Context, _: dict[str, Any]) -> None:
        by[context.worker] += 1
        if by[context.worker] > 25:
            await come.wait()
        await asyncio.sleep(0.2)

    await bench.lay_out(service)
    await publish(bench, 100)
    first = await bench.start(service, prefetch="auto", concurrency=5)
    await bench.until(lambda: by[first.name] >= 25)
    await bench.until(partial(bench.holds, names.work_queue(service.name), least=50))
    second = await bench.start(service, prefetch="auto", concurrency=5)
    come.set()
    await bench.until(lambda: by.total() == 100)
    assert by[second.name] >= 20


async def test_prefetch_follows_the_handlers_and_nothing_comes_twice(bench: Any, service: Service):
    """It grows while they are quick and shrinks while they are slow, in the midst of deliveries."""
    pace = asyncio.Event()
    pace.set()
    seen: Counter[int] = Counter()

    @service.handler("test.work", effect="pure")
    async def paced(_: Context, payload: dict[str, Any]) -> None:
        seen[payload["number"]] += 1
        if not pace.is_set():
            await asyncio.sleep(0.1)

    await bench.lay_out(service)
    worker = await bench.start(service, prefetch="auto", concurrency=4)
    consumers = worker._flow.consumers
    assert consumers.prefetch == 8
    published = 0

    async def has_grown() -> bool:
        nonlocal published
        await publish(bench, 100)
        published += 100
        return bool(consumers.prefetch == AUTO_MOST)

    await bench.until(has_grown)
    await bench.until(lambda: seen.total() == published)
    seen.clear()
    pace.clear()
    await publish(bench, 200)
    await bench.until(lambda: consumers.prefetch < 20)
    pace.set()
    await bench.until(lambda: len(seen) == 200)
    assert set(seen.values()) == {1}
    await bench.until(lambda: consumers.in_hand == 0)
    assert worker.consuming == [names.work_queue(service.name)]


async def test_a_pause_in_the_midst_of_a_change_holds(bench: Any, service: Service):
    """Changed, paused and resumed at once again and again: what was asked last is what is."""
    seen: Counter[int] = Counter()

    @service.handler("test.work", effect="pure")
    async def quick(_: Context, payload: dict[str, Any]) -> None:
        seen[payload["number"]] += 1

    await bench.lay_out(service)
    worker = await bench.start(service)
    (work,) = worker._flow.consumers.all.values()
    publishing = asyncio.create_task(publish(bench, 400))
    for number in range(20):
        await asyncio.gather(work.resize(10 + number), work.pause(), work.resize(30), work.resume())
    await publishing
    await bench.until(lambda: len(seen) == 400)
    await asyncio.gather(work.resize(5), work.pause())
    await publish(bench, 10)
    await bench.until(lambda: work.in_hand == 0)
    await bench.until(partial(bench.holds, work.queue, least=10))
    await work.resume()
    await bench.until(lambda: work.in_hand == 0 and work.delivered >= 410)
    assert seen.total() == 410
