"""What handlers and messages can do wrong: it costs them, and nobody else."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from fleet import clock
from fleet.core.decision import Ack, Decision, Fail, Postpone
from fleet.core.errors import NotNowError, RefusedError
from fleet.core.events import write_event
from fleet.core.retry import RetryPolicy
from topology import names
from topology.model import Lanes, Limits
from workers.context import Context
from workers.registry import Service

QUICK = RetryPolicy(attempts=3, base=0.05, cap=0.1)


class Broken(msgspec.Struct, frozen=True):
    """A payload whose own check has a bug."""

    key: str = ""

    def __post_init__(self) -> None:
        raise KeyError("a bug")


class Far(int):
    """A time that no calendar has."""


@pytest.fixture
def healthy(service: Service) -> Service:
    """The service, with one handler that does as it should."""

    @service.handler("test.healthy")
    def on_healthy(_: Context, __: dict[str, Any]) -> None: ...

    return service


async def passes(bench: Any, service: Service) -> None:
    """What comes behind is handled."""
    event = bench.event("test.healthy")
    await bench.publish(event)
    assert await bench.settled(service, [event]) == {event.event_id: "done"}


def cancelled() -> None:
    """Raise what a handler sees when what it waits for was cancelled by somebody."""
    raise asyncio.CancelledError


def exits() -> None:
    """Ask for the end of the process."""
    raise SystemExit(9)


@pytest.mark.parametrize(
    "act", [cancelled, exits, lambda: Fail("no text but a failure"), lambda: 5]
)
async def test_a_handler_that_misbehaves_fails_alone(
    bench: Any, healthy: Service, act: Callable[[], Any]
):
    """Odd exceptions and odd decisions park the event; the worker goes on."""

    @healthy.handler("test.odd", retry=RetryPolicy(attempts=1))
    async def on_odd(_: Context, __: dict[str, Any]) -> Any:
        return act()

    await bench.lay_out(healthy)
    await bench.start(healthy, concurrency=1)
    event = bench.event("test.odd")
    await bench.publish(event)
    assert await bench.settled(healthy, [event]) == {event.event_id: "failed"}
    await passes(bench, healthy)


async def test_a_lane_outlives_a_cancelled_wait(bench: Any, service: Service):
    """In a lane too, the next tick is handled."""
    service.lanes = Lanes(partitions=2)

    @service.handler("market.tick")
    async def on_tick(_: Context, payload: dict[str, Any]) -> None:
        if payload["number"] == 0:
            raise asyncio.CancelledError

    await bench.lay_out(service)
    await bench.start(service)
    ticks = [bench.event("market.tick", {"pair": "A", "number": number}) for number in range(3)]
    for one in ticks:
        headers = {"x-event-id": one.event_id, "partition": names.partition("A", 2)}
        await bench.send(names.INGEST, one.type, write_event(one), headers)
    outcomes = await bench.settled(service, ticks)
    assert [outcomes[one.event_id] for one in ticks] == ["failed", "done", "done"]


@pytest.mark.parametrize("key", ["a\0b", "", None, 5, "x" * 300, "\ud800"])
async def test_an_odd_effect_key_fails_alone(bench: Any, healthy: Service, key: Any):
    """A key that no store keeps as it is never reaches one."""

    @healthy.handler("test.pay", effect="once", key=lambda _: key)
    async def on_pay(_: Context, __: dict[str, Any]) -> None: ...

    await bench.lay_out(healthy)
    await bench.start(healthy)
    events = [bench.event("test.pay"), bench.event("test.pay")]
    for event in events:
        await bench.publish(event)
    assert set((await bench.settled(healthy, events)).values()) == {"failed"}
    await passes(bench, healthy)


async def test_a_payload_type_with_a_bug_fails_alone(bench: Any, healthy: Service):
    """What a payload's own check raises parks the event."""

    @healthy.handler("test.broken")
    def on_broken(_: Context, __: Broken) -> None: ...

    await bench.lay_out(healthy)
    await bench.start(healthy)
    event = bench.event("test.broken")
    await bench.publish(event)
    assert await bench.settled(healthy, [event]) == {event.event_id: "failed"}
    await passes(bench, healthy)


async def test_headers_that_cannot_be_read_park_their_message(
    bench: Any, healthy: Service, monkeypatch: pytest.MonkeyPatch
):
    """A time beyond every calendar among the headers harms neither worker nor body."""
    from pamqp import encode  # noqa: PLC0415 - patched to write what it would refuse

    plain = encode.encode_table_value

    def far(value: Any) -> bytes:
        return b"T" + struct.pack(">Q", value) if isinstance(value, Far) else plain(value)

    monkeypatch.setattr(encode, "encode_table_value", far)
    await bench.lay_out(healthy)
    await bench.start(healthy)
    headers = {"x-retry-count": 1, "when": Far(2**62)}
    await bench.send(names.INGEST, "test.healthy", b"garbage", headers)
    assert (await bench.take(names.failed(healthy.name))).body == b"garbage"
    await passes(bench, healthy)


async def test_copies_are_not_multiplied(bench: Any, healthy: Service):
    """A CC header does not survive a postponement: one message stays one."""
    calls: list[int] = []

    @healthy.handler("test.later")
    async def on_later(_: Context, __: dict[str, Any]) -> Decision:
        calls.append(1)
        return Postpone(0.05) if len(calls) < 4 else Ack()

    await bench.lay_out(healthy)
    await bench.start(healthy)
    event = bench.event("test.later")
    await bench.publish(event, {"CC": [names.work_queue(healthy.name)]})
    await bench.settled(healthy, [event])
    await passes(bench, healthy)
    assert len(calls) == 4


async def test_garbage_does_not_stand_for_the_event_it_names(bench: Any, healthy: Service):
    """A body that cannot be read, under a good event's id, does not swallow that event."""
    await bench.lay_out(healthy)
    worker = await bench.start(healthy)
    event = bench.event("test.healthy")
    headers = {"x-event-id": event.event_id}
    await bench.send(names.INGEST, "test.healthy", b"garbage", headers)
    await bench.until(lambda: worker.handled == 1)
    await bench.publish(event)
    await bench.until(lambda: worker.handled == 2)
    assert (await bench.journal(healthy.name))[event.event_id][0] == "done"


async def test_a_refused_question_is_no_answer(bench: Any, service: Service):
    """While an outcome is unknown, a refusal to the asker leaves it unknown: no second call."""
    calls: list[str] = []

    async def ask(_: Context, __: dict[str, Any]) -> Decision | None:
        raise RefusedError("403")

    @service.handler("test.pay", effect="once", key=lambda p: p["key"], unknown=ask, retry=QUICK)
    async def on_pay(_: Context, __: dict[str, Any]) -> None:
        calls.append("call")
        raise TimeoutError("no answer")

    await bench.lay_out(service)
    await bench.start(service)
    event = bench.event("test.pay", {"key": "k"})
    await bench.publish(event)
    assert await bench.settled(service, [event]) == {event.event_id: "failed"}
    await bench.publish(event, {"x-replay-count": 1})

    async def both_parked() -> bool:
        return await bench.depth(names.failed(service.name)) == 2

    await bench.until(both_parked)
    states = await bench.store.read(lambda tx: tx.query("SELECT state FROM effects"))
    assert (calls, states) == (["call"], [("unknown",)])


async def test_what_was_never_sent_is_tried_again(bench: Any, service: Service):
    """After "not now" there is nothing to ask: the effect is done at the next attempt."""
    calls: list[int] = []

    @service.handler("test.pay", effect="once", key=lambda p: p["key"])
    async def on_pay(_: Context, __: dict[str, Any]) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise NotNowError("429", retry_after=0.1)

    await bench.lay_out(service)
    await bench.start(service)
    event = bench.event("test.pay", {"key": "k"})
    await bench.publish(event)
    assert await bench.settled(service, [event]) == {event.event_id: "done"}
    assert len(calls) == 2


async def test_age_is_looked_at_again_when_it_runs(
    bench: Any, service: Service, monkeypatch: pytest.MonkeyPatch
):
    """What waited behind a slow one until it was too old is expired, not handled."""
    calls: list[str] = []
    now_ms, late_ms, go = clock.now_ms, [0], asyncio.Event()
    monkeypatch.setattr(clock, "now_ms", lambda: now_ms() + late_ms[0])

    @service.handler("test.slow", max_age=60)
    async def on_slow(context: Context, _: dict[str, Any]) -> None:
        calls.append(context.event.event_id)
        await go.wait()

    await bench.lay_out(service)
    worker = await bench.start(service, concurrency=1, prefetch=10)
    events = [bench.event("test.slow") for _ in range(3)]
    for event in events:
        await bench.publish(event)
    await bench.until(lambda: len(worker._flow.pool._work._queue) == 2)
    late_ms[0] = 120_000
    go.set()
    outcomes = await bench.settled(service, events)
    assert sorted(outcomes.values()) == ["done", "expired", "expired"]
    assert len(calls) == 1


async def test_an_effect_whose_write_failed_is_not_forgotten(bench: Any, service: Service):
    """The effect is done and what should have been written is not: a person sees it."""

    @service.handler("test.pay", effect="once", key=lambda p: p["key"], retry=QUICK)
    async def on_pay(context: Context, _: dict[str, Any]) -> None:
        context.write(lambda tx: tx.execute("INSERT INTO nowhere VALUES (1)"))

    await bench.lay_out(service)
    await bench.start(service)
    event = bench.event("test.pay", {"key": "k"})
    await bench.publish(event)
    assert await bench.settled(service, [event]) == {event.event_id: "failed"}
    assert (await bench.take(names.failed(service.name))).headers["x-error-type"]


async def test_a_queue_full_of_its_own_children_drains(bench: Any, service: Service):
    """Events that find no room in the queue they come from make room themselves."""
    service.limits = Limits(max_length=20)

    @service.handler("test.parent")
    async def on_parent(context: Context, _: dict[str, Any]) -> None:
        for number in range(3):
            context.emit("test.child", {}, key=str(number))

    @service.handler("test.child")
    def on_child(_: Context, __: dict[str, Any]) -> None: ...

    await bench.lay_out(service)
    parents = [bench.event("test.parent") for _ in range(20)]
    for parent in parents:
        await bench.publish(parent)
    await bench.start(service, prefetch=10)

    async def all_done() -> bool:
        rows = await bench.journal(service.name)
        return [outcome for outcome, _ in rows.values()] == ["done"] * 80

    await bench.until(all_done, 120)


async def test_suspects_that_never_ran_are_not_blamed(bench: Any, service: Service):
    """Channels lost while others wait for their turn count no start for those that waited."""
    gate = asyncio.Event()

    @service.handler("test.slow", deadline=60)
    async def on_slow(_: Context, payload: dict[str, Any]) -> None:
        if payload.get("first"):
            await gate.wait()

    await bench.lay_out(service)
    events = [bench.event("test.slow", {"first": number == 0}) for number in range(5)]
    for event in events:
        await bench.publish(event)
    worker = await bench.start(service)
    await bench.until(lambda: worker.consuming)
    for _ in range(5):
        await asyncio.sleep(0.4)
        for subscription in worker._flow.consumers.all.values():
            subscription.restart()
    gate.set()
    assert set((await bench.settled(service, events)).values()) == {"done"}


async def test_a_stop_request_ends_though_the_store_is_away(
    bench: Any, healthy: Service, monkeypatch: pytest.MonkeyPatch
):
    """The grace bounds a drain, also while nothing can be decided."""
    from fleet.core.errors import StateError  # noqa: PLC0415 - only here

    async def away(*_: Any) -> Any:
        raise StateError("locked")

    await bench.lay_out(healthy)
    worker = await bench.start(healthy, grace_s=0.5)
    monkeypatch.setattr(bench.store, "admit", away)
    await bench.publish(bench.event("test.healthy"))
    await asyncio.sleep(0.3)
    async with asyncio.timeout(60):
        await bench.stop(worker)


@pytest.mark.parametrize(("size", "limit"), [(3000, 2048), ((1 << 20) + 1, 1 << 20)])
async def test_an_event_above_the_limit_is_failed_unread(
    bench: Any, healthy: Service, size: int, limit: int
):
    """By us and with the reason, however large it is; the broker alone would not say why."""
    await bench.lay_out(healthy)
    await bench.start(healthy, max_event_bytes=limit)
    body = write_event(bench.event("test.healthy", {"text": ""}))
    body += b" " * (size - len(body))
    await bench.send(names.INGEST, "test.healthy", body, {})
    parked = await bench.take(names.failed(healthy.name))
    assert parked.body == body
    assert parked.headers["x-error-class"] == "data"
    assert parked.headers["x-error-message"] == f"{size} bytes are more than the {limit} allowed"
    await passes(bench, healthy)
