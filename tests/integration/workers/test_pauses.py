"""Pauses by operators and halts of handlers that always fail: two workers, nothing lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from fleet import clock
from fleet.core.errors import SettingsError
from fleet.core.retry import RetryPolicy
from fleet.store import controls, presence, replicas
from fleet.store.controls import Halt, Pause
from topology import names
from topology.model import Lanes
from workers.context import Context
from workers.registry import Service

PAIRS = [f"P{number}/USD" for number in range(8)]


class Seen(msgspec.Struct, frozen=True):
    """The numbers of a pair seen so far."""

    numbers: tuple[int, ...] = ()


async def pause(bench: Any, service: str, pattern: str = "*") -> Pause:
    """Pause as an operator does."""
    wish = Pause(service, pattern, "a test", "ada", clock.now_ms())
    await bench.store.run(lambda tx: controls.pause(tx, wish))
    return wish


async def resume(bench: Any, wish: Pause) -> None:
    """Lift a pause."""
    work = partial(controls.resume, pauses=(wish,), operator="ada", note="", now_ms=1)
    await bench.store.run(work)


async def release(bench: Any, halt: Halt) -> None:
    """Release a halted handler."""
    work = partial(controls.release, service=halt.service, handler=halt.handler)
    await bench.store.run(partial(work, operator="ada", note="", now_ms=1))


async def halts(bench: Any, service: Service) -> tuple[Halt, ...]:
    """The halted handlers of a service."""
    found = await bench.store.read(lambda tx: controls.of(tx, service.name))
    return found.halts


async def has(bench: Any, condition: Callable[[list[replicas.Pulse]], bool]) -> bool:
    """Whether the condition holds for what the live workers say."""
    found = await bench.store.read(replicas.every)
    return condition([each.pulse for each in found])


def all_are(state: str) -> Callable[[list[replicas.Pulse]], bool]:
    """Whether every worker says that it is in this state."""
    return lambda pulses: {each.state for each in pulses} == {state}


def lanes_are_paused(pulses: list[replicas.Pulse]) -> bool:
    """Whether every worker says that all lanes are paused, and only they."""
    return {each.note for each in pulses} == {"16 of 17 queues paused"}


def tick(bench: Any, pair: str, number: int) -> Any:
    """A tick that carries its number."""
    payload = {"pair": pair, "price": 1, "timestamp_ms": number, "number": number}
    return bench.event("market.tick", payload)


async def test_a_paused_service_begins_nothing_and_loses_nothing(bench: Any, service: Service):
    """What is in hand is finished; what comes waits in the queue; later all is done, once."""
    begun, go = Counter[str](), asyncio.Event()

    @service.handler("test.slow")
    async def slow(context: Context, _: dict[str, Any]) -> None:
        begun[context.event.event_id] += 1
        await go.wait()

    await bench.lay_out(service)
    for _ in range(2):
        await bench.start(service, concurrency=2, prefetch=20)
    early = [bench.event("test.slow") for _ in range(40)]
    for event in early:
        await bench.publish(event)
    await bench.until(lambda: len(begun) == 4)
    wish = await pause(bench, service.name)
    await bench.until(partial(has, bench, all_are("paused")))
    late = [bench.event("test.slow") for _ in range(10)]
    for event in late:
        await bench.publish(event)
    go.set()
    await bench.until(lambda: bench.depth(names.work_queue(service.name)))
    await bench.until(partial(has, bench, lambda said: sum(each.in_hand for each in said) == 0))
    assert len(begun) == 4
    assert len(await bench.journal(service.name)) == 4
    await resume(bench, wish)
    outcomes = await bench.settled(service, [*early, *late])
    assert set(outcomes.values()) == {"done"}
    assert set(begun.values()) == {1}
    assert await bench.depth(names.failed(service.name)) == 0


async def test_a_worker_that_starts_into_a_pause_takes_nothing(bench: Any, service: Service):
    """A restart is no way around a pause: it is heard before anything is consumed."""

    @service.handler("test.plain")
    def plain(_: Context, __: dict[str, Any]) -> None:
        """Be done."""

    await bench.lay_out(service)
    wish = await pause(bench, "*")
    starting = asyncio.create_task(bench.start(service))
    await bench.until(partial(has, bench, all_are("paused")))
    event = bench.event("test.plain")
    await bench.publish(event)
    await bench.until(lambda: bench.depth(names.work_queue(service.name)))
    assert not starting.done()
    await resume(bench, wish)
    assert await bench.settled(service, [event]) == {event.event_id: "done"}
    await starting


async def test_a_paused_type_waits_and_the_others_pass(bench: Any, service: Service):
    """Postponed without an attempt, and without its age being held against it."""
    attempts: dict[str, int] = {}
    service.retry = RetryPolicy(attempts=1, max_age=0)

    @service.handler("test.held")
    def held(context: Context, _: dict[str, Any]) -> None:
        attempts[context.event.event_id] = context.attempt

    @service.handler("test.other")
    def other(_: Context, __: dict[str, Any]) -> None:
        """Be done."""

    await bench.lay_out(service)
    wish = await pause(bench, service.name, "test.held")
    for _ in range(2):
        await bench.start(service)
    withheld = [bench.event("test.held", age_s=5) for _ in range(20)]
    passing = [bench.event("test.other") for _ in range(20)]
    for event in [*withheld, *passing]:
        await bench.publish(event)
    await bench.settled(service, passing)

    async def postponed() -> bool:
        found = await bench.store.read(replicas.every)
        return sum(each.pulse.handlers["held"].postponed for each in found) >= 20

    await bench.until(postponed)
    assert attempts == {}
    await resume(bench, wish)
    assert set((await bench.settled(service, withheld)).values()) == {"done"}
    assert attempts == {event.event_id: 1 for event in withheld}


async def test_a_paused_effect_is_let_go_of_and_still_new_afterwards(bench: Any, service: Service):
    """An order that waited in a worker's hands when it was paused is not taken for a doubtful one.

    Its handler has no way to ask, so a doubtful one would be failed.
    """
    calls, go = Counter[str](), asyncio.Event()

    @service.handler("test.order", effect="once", key=lambda payload: payload["key"])
    async def order(_: Context, payload: dict[str, Any]) -> None:
        calls[payload["key"]] += 1
        await go.wait()

    await bench.lay_out(service)
    await bench.start(service, concurrency=1)
    events = [bench.event("test.order", {"key": f"k{number}"}) for number in range(5)]
    for event in events:
        await bench.publish(event)
    await bench.until(lambda: len(calls) == 1)
    wish = await pause(bench, service.name, "test.order")
    await bench.until(partial(has, bench, all_are("paused")))
    go.set()
    await bench.until(partial(has, bench, lambda said: said[0].in_hand == 0))
    assert len(calls) == 1
    await resume(bench, wish)
    assert set((await bench.settled(service, events)).values()) == {"done"}
    assert set(calls.values()) == {1}


async def test_paused_lanes_keep_their_order(bench: Any, service: Service):
    """Ticks that come before, during and after a pause are handled once each, in order."""
    service.lanes = Lanes()

    @service.handler("market.tick", state=Seen)
    def on_tick(context: Context, payload: dict[str, Any]) -> None:
        seen = context.state or Seen()
        context.keep(Seen((*seen.numbers, payload["number"])))

    @service.handler("test.other")
    def other(_: Context, __: dict[str, Any]) -> None:
        """Be done."""

    await bench.lay_out(service)
    for _ in range(2):
        await bench.start(service, lane_prefetch=20)
    events, wish = [], None
    for number in range(60):
        for pair in PAIRS:
            events.append(tick(bench, pair, number))
            await bench.publish(events[-1])
        if number == 15:
            wish = await pause(bench, service.name, "market.*")
        if number == 30:
            await bench.until(partial(has, bench, lanes_are_paused))
        if number == 45:
            await bench.until(lambda: bench.depth(_lane(service, "P0/USD")))
            passing = bench.event("test.other")
            await bench.publish(passing)
            await bench.settled(service, [passing])
    assert wish is not None
    done = await bench.journal(service.name)
    assert not {event.event_id for event in events[-8:]} & set(done)
    await resume(bench, wish)
    await bench.settled(service, events)
    rows = await bench.store.read(
        lambda tx: tx.query(
            "SELECT state_key, body FROM lane_states WHERE service = ?", (service.name,)
        )
    )
    windows = {pair: msgspec.json.decode(body)["numbers"] for pair, body in rows}
    assert windows == {pair: list(range(60)) for pair in PAIRS}


def _lane(service: Service, pair: str) -> str:
    return names.lane(service.name, "market.tick", names.partition(pair, 16))


async def test_a_handler_that_always_fails_is_halted_for_all(bench: Any, service: Service):
    """After five equal bugs its events wait, in both workers; others pass; released, it works."""
    broken = True

    @service.handler("test.buggy")
    def buggy(_: Context, payload: dict[str, Any]) -> None:
        if broken:
            raise ValueError(f"number {payload['n']} is odd")

    @service.handler("test.fine")
    def fine(_: Context, __: dict[str, Any]) -> None:
        """Be done."""

    await bench.lay_out(service)
    for _ in range(2):
        await bench.start(service, concurrency=1)
    first = [bench.event("test.buggy", {"n": n}) for n in range(30)]
    for event in first:
        await bench.publish(event)
    await bench.until(lambda: halts(bench, service))
    (halt,) = await halts(bench, service)
    assert (halt.handler, halt.reason.partition(":")[0]) == ("buggy", "ValueError")

    async def heard() -> bool:
        found = await bench.store.read(replicas.every)
        return len(found) == 2 and all(each.pulse.handlers["buggy"].postponed for each in found)

    waiting = [bench.event("test.buggy", {"n": n}) for n in range(30)]
    passing = [bench.event("test.fine") for _ in range(10)]
    for event in [*waiting, *passing]:
        await bench.publish(event)
    await bench.settled(service, passing)
    await bench.until(heard)
    failed = Counter(outcome for outcome, _ in (await bench.journal(service.name)).values())
    assert 5 <= failed["failed"] < 30
    broken = False
    await release(bench, halt)
    outcomes = await bench.settled(service, [*first, *waiting])
    assert {outcomes[event.event_id] for event in waiting} == {"done"}
    parked = Counter(outcomes.values())["failed"]
    await bench.until(partial(bench.holds, names.failed(service.name), least=parked))
    assert await bench.depth(names.failed(service.name)) == parked


async def test_a_halt_raises_one_alert(bench: Any, service: Service):
    """Whoever else handles alerts hears of it once, with what to do."""
    heard: list[dict[str, Any]] = []

    @service.handler("test.buggy")
    def buggy(_: Context, __: dict[str, Any]) -> None:
        raise ValueError("odd")

    @service.handler("alert.raised")
    def on_alert(_: Context, payload: dict[str, Any]) -> None:
        heard.append(payload)

    await bench.lay_out(service)
    for _ in range(2):
        await bench.start(service, halt_after=3)
    for _ in range(12):
        await bench.publish(bench.event("test.buggy"))
    await bench.until(lambda: heard)

    async def told() -> bool:
        return [halt.told for halt in await halts(bench, service)] == [True]

    await bench.until(told)
    assert len(heard) == 1
    assert heard[0]["severity"] == "critical"
    assert f"fleet handlers release buggy --service {service.name}" in heard[0]["detail"]
    assert heard[0]["runbook"].startswith("docs/")


async def test_failures_that_time_or_data_explain_halt_nothing(bench: Any, service: Service):
    """Only a bug is worth a halt: not a venue that is away, not bad data, not what recovers."""
    service.retry = RetryPolicy(attempts=1)

    @service.handler("test.mixed")
    def mixed(_: Context, payload: dict[str, Any]) -> None:
        if payload["n"] % 4:
            raise ValueError("odd")

    @service.handler("test.away")
    def away(_: Context, __: dict[str, Any]) -> None:
        raise TimeoutError("away")

    await bench.lay_out(service)
    await bench.start(service, concurrency=1)
    events = [bench.event("test.mixed", {"n": n}) for n in range(20)]
    events += [bench.event("test.away") for _ in range(20)]
    for event in events:
        await bench.publish(event)
    outcomes = await bench.settled(service, events)
    assert Counter(outcomes.values()) == {"done": 5, "failed": 35}
    assert await halts(bench, service) == ()


async def test_a_handler_whose_writes_always_raise_is_halted_too(bench: Any, service: Service):
    """The bug is in what it hands over to be written: it fails each delivery all the same."""

    @service.handler("test.writes")
    def writes(context: Context, _: dict[str, Any]) -> None:
        context.write(lambda _: 1 // 0)

    await bench.lay_out(service)
    await bench.start(service)
    for _ in range(12):
        await bench.publish(bench.event("test.writes"))
    await bench.until(lambda: halts(bench, service))
    (halt,) = await halts(bench, service)
    assert (halt.handler, halt.reason.partition(":")[0]) == ("writes", "ZeroDivisionError")


async def test_two_workers_of_one_name_cannot_live_together(
    bench: Any, service: Service, monkeypatch: pytest.MonkeyPatch
):
    """Effects and lanes are held by name: the second one says so and does not start."""
    monkeypatch.setattr(presence, "SILENT_S", 60.0)  # however long the first one's store takes

    @service.handler("test.plain")
    def plain(_: Context, __: dict[str, Any]) -> None:
        """Be done."""

    await bench.lay_out(service)
    await bench.start(service, worker_name="twin")
    with pytest.raises(SettingsError, match="Another worker works under the name twin"):
        await bench.start(service, worker_name="twin")


async def test_pauses_that_come_and_go_under_load_lose_and_double_nothing(
    bench: Any, service: Service
):
    """Whatever is paused when: every event is done, each effect called once, lanes in order."""
    service.lanes = Lanes()
    calls = Counter[str]()

    @service.handler("market.tick", state=Seen)
    def on_tick(context: Context, payload: dict[str, Any]) -> None:
        seen = context.state or Seen()
        context.keep(Seen((*seen.numbers, payload["number"])))

    @service.handler("test.order", effect="once", key=lambda payload: payload["key"])
    async def order(_: Context, payload: dict[str, Any]) -> None:
        calls[payload["key"]] += 1
        await asyncio.sleep(0.01)

    await bench.lay_out(service)
    for _ in range(2):
        await bench.start(service, prefetch=60, lane_prefetch=20)
    publishing = asyncio.create_task(_publish(bench, seconds=8))
    for pattern in ("*", "test.order", "market.tick", "test.*"):
        wish = await pause(bench, service.name, pattern)
        await asyncio.sleep(1.5)
        await resume(bench, wish)
        await asyncio.sleep(0.4)
    ticks, orders = await publishing
    outcomes = await bench.settled(service, [*ticks, *orders])
    assert set(outcomes.values()) == {"done"}
    assert calls == {event.payload["key"]: 1 for event in orders}
    rows = await bench.store.read(
        lambda tx: tx.query(
            "SELECT state_key, body FROM lane_states WHERE service = ?", (service.name,)
        )
    )
    windows = {pair: msgspec.json.decode(body)["numbers"] for pair, body in rows}
    assert windows == {pair: list(range(len(orders))) for pair in PAIRS[:4]}


async def _publish(bench: Any, seconds: float) -> tuple[list[Any], list[Any]]:
    """Ticks of four pairs, and orders, for so long."""
    ticks, orders = [], []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        number = len(orders)
        ticks += [tick(bench, pair, number) for pair in PAIRS[:4]]
        orders.append(bench.event("test.order", {"key": f"k{number}"}))
        for event in (*ticks[-4:], orders[-1]):
            await bench.publish(event)
    return ticks, orders
