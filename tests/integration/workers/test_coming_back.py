"""Connections break, brokers cancel, workers stop: nothing is lost and nothing done twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from urllib.parse import quote

import pytest

from fleet import clock
from fleet.broker import Management
from fleet.core.errors import StateError
from fleet.store import Candidate, Claim
from topology import names
from workers import intake
from workers.context import Context
from workers.registry import Service
from workers.worker import Worker


@pytest.fixture
def counted(service: Service) -> tuple[Service, Counter[str]]:
    """A service whose handler takes a moment and counts."""
    calls: Counter[str] = Counter()

    @service.handler("test.counted")
    async def on_counted(context: Context, _: dict[str, Any]) -> None:
        await asyncio.sleep(0.01)
        calls[context.event.event_id] += 1

    return service, calls


async def publish(bench: Any, count: int) -> list[Any]:
    """So many events, confirmed."""
    events = [bench.event("test.counted") for _ in range(count)]
    for event in events:
        await bench.publish(event)
    return events


async def test_a_stop_request_finishes_what_runs_and_hands_back_the_rest(bench: Any, counted: Any):
    """After a drain every event is either journalled or in the queue, never both or neither."""
    service, calls = counted
    await bench.lay_out(service)
    events = await publish(bench, 300)
    worker = await bench.start(service, concurrency=2)
    await bench.until(lambda: len(calls) > 20)
    await bench.stop(worker)
    done = await bench.journal(service.name)
    assert set(calls) == set(done)
    assert len(done) < 300

    async def all_back() -> bool:
        # A quorum queue counts what was handed back a moment later.
        return await bench.depth(names.work_queue(service.name)) == 300 - len(done)

    await bench.until(all_back)
    await bench.start(service)
    await bench.settled(service, events)
    assert set(calls.values()) == {1}


class Once:
    """A service whose handler has an effect, cannot ask about it, and waits at a gate."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.calls: Counter[str] = Counter()
        self.began, self.gate = asyncio.Event(), asyncio.Event()

        @service.handler(
            "test.once", effect="once", key=lambda payload: payload["key"], deadline=600
        )
        async def once(_: Context, payload: dict[str, Any]) -> None:
            self.calls[payload["key"]] += 1
            self.began.set()
            await self.gate.wait()

    async def begin(self, bench: Any, count: int) -> tuple[Worker, list[Any]]:
        """A worker with one of so many events at work, and the others reserved."""
        await bench.lay_out(self.service)
        events = [
            bench.event("test.once", {"key": f"{self.service.name} {n}"}) for n in range(count)
        ]
        for event in events:
            await bench.publish(event)
        worker = await bench.start(self.service, concurrency=1, prefetch=50)
        await self.began.wait()
        await bench.until(lambda: waiting(worker) == count - 1)
        return worker, events

    async def drain(self, bench: Any, worker: Worker) -> None:
        """Stop the worker; its handler ends once what waited behind it was taken out."""
        stopping = asyncio.create_task(bench.stop(worker))
        await bench.until(lambda: not waiting(worker))
        self.gate.set()
        await stopping

    async def all_done_once(self, bench: Any, events: list[Any]) -> None:
        """Long before a hold is over: it is the handler's deadline and 10 s."""
        assert set((await bench.settled(self.service, events)).values()) == {"done"}
        assert set(self.calls.values()) == {1}


def waiting(worker: Worker) -> int:
    """How many jobs wait for their handler."""
    return worker._flow.pool._work.qsize()


@pytest.fixture
def once(service: Service) -> Once:
    """Each event takes minutes to give up: whoever waits for a hold, or asks, is seen."""
    return Once(service)


async def test_effects_that_were_only_reserved_go_on_elsewhere_at_once(bench: Any, once: Once):
    """What a drain hands back was not tried: nobody waits for its hold, asks or fails it."""
    worker, events = await once.begin(bench, 20)
    await once.drain(bench, worker)
    await bench.start(once.service)
    await once.all_done_once(bench, events)


async def test_a_drain_lets_go_of_effects_as_soon_as_the_store_is_back(
    bench: Any, once: Once, monkeypatch: pytest.MonkeyPatch
):
    """A store that is away while a worker leaves: what was not begun is not called unknown."""
    worker, events = await once.begin(bench, 20)
    run, failures = bench.store.run, iter(range(3))

    async def away(work: Any) -> Any:
        if next(failures, None) is not None:
            raise StateError("database is locked")
        return await run(work)

    monkeypatch.setattr(bench.store, "run", away)
    await once.drain(bench, worker)
    await bench.start(once.service)
    await once.all_done_once(bench, events)


async def test_effects_that_were_only_reserved_outlive_a_lost_connection(
    bench: Any, once: Once, management: Management, vhost: str
):
    """What a worker had not begun when its connection broke is new to whoever has it next."""
    worker, events = await once.begin(bench, 20)
    waits = worker._flow.pool._work._queue[0].delivery
    await bench.start(once.service)

    async def is_lost() -> bool:
        # Again and again: of the worker's two connections only one may be listed yet.
        await asyncio.to_thread(close_connections, management, vhost, worker.name)
        return not waits.is_ours

    await bench.until(is_lost)
    once.gate.set()
    await once.all_done_once(bench, events)


async def test_what_waited_beyond_its_hold_is_begun_only_if_nobody_had_it(
    bench: Any, once: Once, monkeypatch: pytest.MonkeyPatch
):
    """A name may go to another process while one stands still: what that began is asked about."""
    monkeypatch.setattr(intake, "HOLD_MARGIN_S", 0)
    worker, events = await once.begin(bench, 3)
    taken, left = events[1], events[2]
    claim = Claim(
        key=taken.payload["key"],
        kind=taken.type,
        holder=f"{worker.name} {taken.event_id}",
        held_until_ms=clock.now_ms(),
    )
    candidate = Candidate(once.service.name, taken.event_id, 0, claim)
    await bench.store.admit([candidate], clock.now_ms())
    once.gate.set()
    outcomes = await bench.settled(once.service, events)
    assert (outcomes[taken.event_id], outcomes[left.event_id]) == ("failed", "done")
    assert once.calls[taken.payload["key"]] == 0


async def test_a_handler_beyond_the_grace_is_given_up(bench: Any, service: Service):
    """A drain ends with its grace; what still ran comes again to the next worker."""
    calls: list[bool] = []

    @service.handler("test.counted", deadline=600)
    async def on_counted(_: Context, __: dict[str, Any]) -> None:
        calls.append(True)
        if len(calls) == 1:
            await asyncio.sleep(600)

    await bench.lay_out(service)
    worker = await bench.start(service, grace_s=0.3)
    [event] = await publish(bench, 1)
    await bench.until(lambda: calls)
    async with asyncio.timeout(60):
        await bench.stop(worker)
    await bench.start(service)
    assert await bench.settled(service, [event]) == {event.event_id: "done"}


async def test_consuming_resumes_when_connections_are_closed(
    bench: Any, counted: Any, management: Management, vhost: str
):
    """An operator closes every connection: each event is handled, journalled once."""
    service, _ = counted
    await bench.lay_out(service)
    worker = await bench.start(service)
    events = await publish(bench, 100)
    await bench.until(lambda: worker.handled > 10)
    await bench.until(lambda: asyncio.to_thread(close_connections, management, vhost, worker.name))
    await bench.settled(service, events)
    late = await publish(bench, 20)
    assert set((await bench.settled(service, late)).values()) == {"done"}


def close_connections(management: Management, vhost: str, worker: str) -> bool:
    """Close the worker's connections as an operator would; False while none is listed."""
    found = [
        quote(one["name"], safe="")
        for one in management.call("GET", "connections")
        if one.get("vhost") == vhost
        and str(one.get("client_properties", {}).get("connection_name", "")).startswith(worker)
    ]
    for name in found:
        management.call("DELETE", f"connections/{name}")
    return bool(found)


async def test_a_consumer_that_the_broker_cancelled_starts_anew(bench: Any, counted: Any):
    """A queue deleted and declared again is consumed again, by the same worker."""
    service, _ = counted
    await bench.lay_out(service)
    worker = await bench.start(service, silence_s=1)
    first = await publish(bench, 5)
    await bench.settled(service, first)
    channel = await bench._connection.channel()
    await channel.queue_delete(names.work_queue(service.name))
    await bench.lay_out(service)
    await bench.until(lambda: worker.consuming)
    second = await publish(bench, 5)
    assert set((await bench.settled(service, second)).values()) == {"done"}


async def test_while_the_store_is_away_nothing_is_decided(
    bench: Any, counted: Any, monkeypatch: pytest.MonkeyPatch
):
    """A store that fails and comes back: deliveries wait, then each is journalled once."""
    service, calls = counted
    await bench.lay_out(service)
    await bench.start(service)
    commit, failures = bench.store.commit, iter(range(3))

    async def away(settled: Any) -> Any:
        if next(failures, None) is not None:
            raise StateError("disk full")
        return await commit(settled)

    monkeypatch.setattr(bench.store, "commit", away)
    events = await publish(bench, 30)
    assert set((await bench.settled(service, events)).values()) == {"done"}
    assert set(calls.values()) == {1}


async def test_a_delivery_that_comes_back_runs_alone(bench: Any, service: Service):
    """A suspect has the worker to itself, and its start is on record before it runs."""
    running: set[str] = set()
    beside: list[set[str]] = []
    starts: list[Any] = []

    @service.handler("test.counted", deadline=60)
    async def on_counted(context: Context, payload: dict[str, Any]) -> None:
        running.add(context.event.event_id)
        await asyncio.sleep(0.05)
        if payload.get("suspect"):
            beside.append(set(running))
            starts.append(
                await bench.store.read(lambda tx: tx.query("SELECT event_id, starts FROM starts"))
            )
        running.remove(context.event.event_id)

    await bench.lay_out(service)
    suspect = bench.event("test.counted", {"suspect": True})
    await bench.publish(suspect)
    queue = await bench._channel.get_queue(names.work_queue(service.name), ensure=False)
    message = await queue.get(timeout=60)
    # From 4.3 on a nack does not count as a return: the broker tells it from a death.
    await message.reject(requeue=True)
    await bench.start(service)
    others = await publish(bench, 20)
    await bench.settled(service, [suspect, *others])
    assert beside == [{suspect.event_id}]
    assert starts == [[(suspect.event_id, 1)]]
    left = await bench.store.read(lambda tx: tx.query("SELECT * FROM starts"))
    assert left == []
