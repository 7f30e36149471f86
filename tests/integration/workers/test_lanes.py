"""Ticks of one pair: in order, by one owner, with a window that moves with the lane."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import msgspec
import pytest

from fleet.store import KeyState, Settled, Tx, batch, lanes
from topology import names
from topology.model import Lanes
from workers.context import Context
from workers.registry import Service

PAIRS = [f"P{number}/USD" for number in range(24)]


class Seen(msgspec.Struct, frozen=True):
    """The numbers of a pair seen so far."""

    numbers: tuple[int, ...] = ()


@pytest.fixture
def ticks(service: Service) -> tuple[Service, dict[str, list[int]]]:
    """A service that keeps, in its lanes' state, which numbers it saw of each pair."""
    service.lanes = Lanes()
    order: dict[str, list[int]] = defaultdict(list)

    @service.handler("market.tick", state=Seen)
    def on_tick(context: Context, payload: dict[str, Any]) -> None:
        seen = context.state or Seen()
        order[payload["pair"]].append(payload["number"])
        context.keep(Seen((*seen.numbers, payload["number"])))

    return service, order


def tick(bench: Any, pair: str, number: int) -> Any:
    """A tick that carries its number."""
    payload = {"pair": pair, "price": 1, "timestamp_ms": number, "number": number}
    return bench.event("market.tick", payload)


async def states(bench: Any, service: Service) -> dict[str, list[int]]:
    """What the store has of each pair."""
    rows = await bench.store.read(
        lambda tx: tx.query(
            "SELECT state_key, body FROM lane_states WHERE service = ?", (service.name,)
        )
    )
    return {pair: msgspec.json.decode(body)["numbers"] for pair, body in rows}


async def test_each_pair_is_handled_in_order_and_its_state_saved(bench: Any, ticks: Any):
    """However many pairs interleave, each is in order, and the store has the last state."""
    service, order = ticks
    await bench.lay_out(service)
    await bench.start(service)
    events = [tick(bench, pair, number) for number in range(10) for pair in PAIRS]
    for event in events:
        await bench.publish(event)
    await bench.settled(service, events)
    assert order == {pair: list(range(10)) for pair in PAIRS}
    assert await states(bench, service) == {pair: list(range(10)) for pair in PAIRS}


async def test_a_new_owner_goes_on_with_the_state_of_the_old(bench: Any, ticks: Any):
    """When a worker leaves, another one has its lanes, and their windows have no gap."""
    service, _ = ticks
    await bench.lay_out(service)
    first = await bench.start(service)
    early = [tick(bench, pair, number) for number in range(5) for pair in PAIRS]
    for event in early:
        await bench.publish(event)
    await bench.settled(service, early)
    await bench.start(service)
    await bench.stop(first)
    late = [tick(bench, pair, number) for number in range(5, 10) for pair in PAIRS]
    for event in late:
        await bench.publish(event)
    await bench.settled(service, late)
    assert await states(bench, service) == {pair: list(range(10)) for pair in PAIRS}


async def test_lanes_that_move_under_load_lose_and_double_nothing(bench: Any, ticks: Any):
    """Workers join and leave while ticks flow: each window has every number once, in order."""
    service, _ = ticks
    await bench.lay_out(service)
    workers = [await bench.start(service)]
    events = []
    for number in range(40):
        for pair in PAIRS[:8]:
            events.append(tick(bench, pair, number))
            await bench.publish(events[-1])
        if number in (8, 16):
            workers.append(await bench.start(service))
        if number in (24, 32):
            await bench.stop(workers.pop(0))
    await bench.settled(service, events)
    assert await states(bench, service) == {pair: list(range(40)) for pair in PAIRS[:8]}


async def test_a_worker_whose_lane_was_taken_writes_nothing(bench: Any, ticks: Any):
    """A lane taken behind a worker's back: its commit is fenced, the tick comes again, once."""
    service, order = ticks
    handled, go = asyncio.Event(), asyncio.Event()
    original = service.handlers["market.tick"].function
    del service.handlers["market.tick"]

    @service.handler("market.tick", state=Seen)
    async def on_tick(context: Context, payload: dict[str, Any]) -> None:
        handled.set()
        await go.wait()
        original(context, payload)

    await bench.lay_out(service)
    await bench.start(service)
    event = tick(bench, "P0/USD", 0)
    await bench.publish(event)
    await bench.until(handled.is_set)
    queue = names.lane(service.name, "market.tick", names.partition("P0/USD", 16))
    await bench.store.run(lambda tx: lanes.take(tx, service.name, queue, "somebody else"))
    go.set()
    await bench.settled(service, [event])
    assert order["P0/USD"] == [0, 0]
    assert await states(bench, service) == {"P0/USD": [0]}


async def test_what_the_last_owner_commits_as_its_lane_is_taken_is_not_handled_again(
    bench: Any, ticks: Any, monkeypatch: pytest.MonkeyPatch
):
    """A tick that is in both hands: the new owner has the state that it left, and it but once.

    So a lane is taken before its ticks are looked up in the journal.
    """
    service, order = ticks
    await bench.lay_out(service)
    first, second = (tick(bench, "P0/USD", number) for number in range(2))
    queue = names.lane(service.name, "market.tick", names.partition("P0/USD", 16))
    epoch, _ = await bench.store.run(lambda tx: lanes.take(tx, service.name, queue, "the last"))
    last = Settled(
        service=service.name,
        event_id=first.event_id,
        outcome="done",
        attempt=1,
        worker="the last",
        at_ms=first.ts,
        states=(KeyState("P0/USD", 1, msgspec.json.encode(Seen((0,)))),),
        lane=queue,
        epoch=epoch,
    )
    take = lanes.take

    def take_behind(tx: Tx, service: str, lane: str, owner: str) -> tuple[int, list[KeyState]]:
        batch.commit(tx, [last])
        return take(tx, service, lane, owner)

    monkeypatch.setattr(lanes, "take", take_behind)
    await bench.start(service)
    for event in (first, second):
        await bench.publish(event)
    await bench.settled(service, [second])
    assert order["P0/USD"] == [1]
    assert await states(bench, service) == {"P0/USD": [0, 1]}


async def test_a_failing_tick_is_parked_and_never_retried(bench: Any, service: Service):
    """In a lane nothing waits: the tick is failed, and the next one passes."""
    service.lanes = Lanes()

    @service.handler("market.tick")
    def on_tick(_: Context, payload: dict[str, Any]) -> None:
        if payload["number"] == 0:
            raise TimeoutError("odd")

    await bench.lay_out(service)
    await bench.start(service)
    bad, good = tick(bench, "P0/USD", 0), tick(bench, "P0/USD", 1)
    await bench.publish(bad)
    await bench.publish(good)
    outcomes = await bench.settled(service, [bad, good])
    assert outcomes == {bad.event_id: "failed", good.event_id: "done"}
    parked = await bench.take(names.failed(service.name))
    assert parked.headers["x-error-type"] == "TimeoutError"
    assert parked.headers["x-failed-queue"].startswith(f"pf.{service.name}.ticks.")


async def test_a_worker_that_leaves_a_backlog_keeps_the_order(bench: Any, ticks: Any):
    """What a leaving worker only prefetched comes before all that it was never given."""
    service, order = ticks
    on_tick = service.handlers.pop("market.tick").function

    @service.handler("market.tick", state=Seen)
    async def slow(context: Context, payload: dict[str, Any]) -> None:
        await asyncio.sleep(0.002)
        on_tick(context, payload)

    await bench.lay_out(service)
    events = [tick(bench, PAIRS[0], number) for number in range(1200)]
    for event in events:
        await bench.publish(event)
    worker = await bench.start(service)
    for most in (100, 300, 500):
        await bench.until(lambda most=most: len(order[PAIRS[0]]) > most)
        heir = await bench.start(service)
        await bench.stop(worker)
        worker = heir
    await bench.settled(service, events)
    seen = (await states(bench, service))[PAIRS[0]]
    assert seen == list(range(1200))
