"""Every delivery ends in one settlement: done, retried, postponed, failed or expired."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from fleet.core.decision import Ack, Decision, Postpone
from fleet.core.errors import ApiError, RefusedError, SettingsError, TopologyError
from fleet.core.events import write_event
from fleet.core.retry import RetryPolicy
from fleet.core.ulid import derived_ulid
from topology import names
from topology.model import Lanes
from workers.context import Context
from workers.registry import Service

QUICK = RetryPolicy(attempts=3, base=0.05, cap=0.1)


class Size(msgspec.Struct, frozen=True):
    """A payload of the test's own."""

    size: Decimal


async def test_handled_events_are_journalled_and_acked(bench: Any, service: Service):
    """Each event is handled once, is in the journal as done, and leaves the queue empty."""
    seen: list[Decimal] = []

    @service.handler("test.sized")
    async def on_sized(_: Context, payload: Size) -> None:
        seen.append(payload.size)

    await bench.lay_out(service)
    worker = await bench.start(service)
    events = [bench.event("test.sized", {"size": Decimal("0.1") + n}) for n in range(50)]
    for event in events:
        await bench.publish(event)
    outcomes = await bench.settled(service, events)
    assert set(outcomes.values()) == {"done"}
    assert sorted(seen) == [Decimal("0.1") + n for n in range(50)]
    await bench.stop(worker)
    assert await bench.depth(names.work_queue(service.name)) == 0


async def test_an_event_published_twice_is_handled_once(bench: Any, service: Service):
    """A twin, in hand at the same time or later, is acked without the handler."""
    calls: list[str] = []

    @service.handler("test.slow")
    async def on_slow(context: Context, _: dict[str, Any]) -> None:
        calls.append(context.event.event_id)
        await asyncio.sleep(0.2)

    await bench.lay_out(service)
    worker = await bench.start(service)
    event = bench.event("test.slow")
    await bench.publish(event)
    await bench.publish(event)
    await bench.settled(service, [event])
    await bench.publish(event)
    await bench.until(lambda: worker.handled == 3)
    assert calls == [event.event_id]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"\xff\xfe garbage", "EnvelopeError"),
        (b'{"eventId":1}', "EnvelopeError"),
        (b"", "EnvelopeError"),
        (b"[" * 5000, "EnvelopeError"),
    ],
)
async def test_what_cannot_be_read_is_parked(bench: Any, service: Service, body: bytes, kind: str):
    """Garbage lands in the failed queue, as it is, with the reason; what is behind it passes."""

    @service.handler("test.fine")
    def on_fine(_: Context, __: dict[str, Any]) -> None: ...

    await bench.lay_out(service)
    await bench.start(service)
    await bench.send(
        names.INGEST, "test.fine", body, {"x-event-id": "no ulid", "x-retry-count": "x"}
    )
    event = bench.event("test.fine")
    await bench.publish(event)
    assert await bench.settled(service, [event]) == {event.event_id: "done"}
    parked = await bench.take(names.failed(service.name))
    assert parked.body == body
    assert parked.headers["x-error-type"] == kind
    assert parked.headers["x-error-class"] == "data"
    assert parked.headers["x-failed-queue"] == names.work_queue(service.name)


async def test_a_payload_of_the_wrong_form_is_parked(bench: Any, service: Service):
    """A typed handler never sees a payload that is not of its type."""

    @service.handler("test.sized")
    def on_sized(_: Context, __: Size) -> None: ...

    await bench.lay_out(service)
    await bench.start(service)
    event = bench.event("test.sized", {"size": "many"})
    await bench.publish(event)
    assert await bench.settled(service, [event]) == {event.event_id: "failed"}
    parked = await bench.take(names.failed(service.name))
    assert parked.headers["x-error-type"] == "DataError"
    assert parked.headers["x-handler"] == "on_sized"


async def test_a_type_that_nobody_handles_is_parked(bench: Any, service: Service):
    """An event brought to the queue by other means than the bindings fails with its reason."""

    @service.handler("test.fine")
    def on_fine(_: Context, __: dict[str, Any]) -> None: ...

    await bench.lay_out(service)
    await bench.start(service)
    event = bench.event("other.kind")
    queue = names.work_queue(service.name)
    await bench.send(names.REDELIVER, queue, write_event(event), {"x-event-id": "of another"})
    assert await bench.settled(service, [event]) == {event.event_id: "failed"}
    parked = await bench.take(names.failed(service.name))
    assert parked.headers["x-error-type"] == "UnknownType"
    assert parked.headers["x-event-id"] == event.event_id
    assert parked.headers["x-event-type"] == "other.kind"


async def test_a_failing_handler_is_retried_then_parked(bench: Any, service: Service):
    """Attempts are counted in the header, bounded, and written down in the history."""
    attempts: list[int] = []

    @service.handler("test.flaky", retry=QUICK)
    async def on_flaky(context: Context, _: dict[str, Any]) -> None:
        attempts.append(context.attempt)
        raise ApiError("503 for pf_live_abcdef at amqp://me:secret@host/")

    await bench.lay_out(service)
    await bench.start(service)
    event = bench.event("test.flaky")
    await bench.publish(event)
    assert await bench.settled(service, [event]) == {event.event_id: "failed"}
    assert attempts == [1, 2, 3]
    parked = await bench.take(names.failed(service.name))
    assert parked.headers["x-retry-count"] == 3
    assert parked.headers["x-error-class"] == "api"
    assert len(parked.headers["x-error-history"]) == 3
    assert "abcdef" not in str(parked.headers)
    assert "secret" not in str(parked.headers)
    assert parked.body == write_event(event)


async def test_a_permanent_error_is_not_retried(bench: Any, service: Service):
    """A bug and a refusal are parked at once."""
    calls: list[str] = []

    @service.handler("test.*", retry=QUICK)
    async def on_any(context: Context, _: dict[str, Any]) -> None:
        calls.append(context.event.type)
        raise RefusedError if context.event.type == "test.refused" else ZeroDivisionError

    await bench.lay_out(service)
    await bench.start(service)
    events = [bench.event("test.refused"), bench.event("test.bug")]
    for event in events:
        await bench.publish(event)
    assert set((await bench.settled(service, events)).values()) == {"failed"}
    assert sorted(calls) == ["test.bug", "test.refused"]


async def test_a_postponed_event_comes_back_uncounted(bench: Any, service: Service):
    """Postponing costs no attempt."""
    attempts: list[int] = []

    @service.handler("test.later")
    async def on_later(context: Context, _: dict[str, Any]) -> Decision:
        attempts.append(context.attempt)
        return Postpone(0.05) if len(attempts) < 3 else Ack()

    await bench.lay_out(service)
    await bench.start(service)
    event = bench.event("test.later")
    await bench.publish(event)
    assert await bench.settled(service, [event]) == {event.event_id: "done"}
    assert attempts == [1, 1, 1]


async def test_what_is_too_old_is_expired(bench: Any, service: Service):
    """Age is checked before the handler; an operator's header lifts it."""
    calls: list[str] = []

    @service.handler("test.fresh", max_age=5)
    async def on_fresh(context: Context, _: dict[str, Any]) -> None:
        calls.append(context.event.event_id)

    await bench.lay_out(service)
    await bench.start(service)
    stale, allowed = bench.event("test.fresh", age_s=60), bench.event("test.fresh", age_s=60)
    await bench.publish(stale)
    await bench.publish(allowed, {"x-allow-stale": True})
    outcomes = await bench.settled(service, [stale, allowed])
    assert outcomes == {stale.event_id: "expired", allowed.event_id: "done"}
    assert calls == [allowed.event_id]


async def test_a_handler_beyond_its_deadline_is_retried(bench: Any, service: Service):
    """A handler that hangs is a timeout, and blocks nobody."""

    @service.handler("test.hangs", deadline=0.1, retry=QUICK)
    async def on_hangs(context: Context, _: dict[str, Any]) -> None:
        if context.attempt == 1:
            await asyncio.sleep(60)

    await bench.lay_out(service)
    await bench.start(service, concurrency=1)
    event = bench.event("test.hangs")
    await bench.publish(event)
    assert await bench.settled(service, [event]) == {event.event_id: "done"}


async def test_emitted_events_are_published_before_the_delivery_is_done(
    bench: Any, service: Service
):
    """What a handler emits is handled in turn; its id derives from the parent's, its `ts` is it."""
    got: list[Any] = []

    @service.handler("test.parent")
    def on_parent(context: Context, _: dict[str, Any]) -> None:
        context.emit("test.child", {"size": Decimal("1.10")}, key="a")

    @service.handler("test.child")
    def on_child(context: Context, payload: Size) -> None:
        got.append((context.event, payload.size))

    await bench.lay_out(service)
    await bench.start(service)
    parent = bench.event("test.parent")
    await bench.publish(parent)
    await bench.until(lambda: got)
    child, size = got[0]
    assert child.event_id == derived_ulid(parent.ts, f"{parent.event_id}:test.child:a")
    assert child.ts == parent.ts
    assert str(size) == "1.10"


async def test_writes_commit_with_the_journal_row_or_not_at_all(bench: Any, service: Service):
    """What a handler writes is there when its row is; what raises is undone and parked."""

    @service.handler("test.writes")
    def on_writes(context: Context, payload: dict[str, Any]) -> None:
        event_id = context.event.event_id
        context.write(lambda tx: tx.execute("INSERT INTO notes VALUES (?)", (event_id,)))
        if payload["bad"]:
            context.write(lambda tx: tx.execute("INSERT INTO nowhere VALUES (1)"))

    await bench.store.run(lambda tx: tx.execute("CREATE TABLE notes (id TEXT)"))
    await bench.lay_out(service)
    await bench.start(service)
    good = [bench.event("test.writes", {"bad": False}) for _ in range(20)]
    bad = bench.event("test.writes", {"bad": True})
    for event in [*good[:10], bad, *good[10:]]:
        await bench.publish(event)
    outcomes = await bench.settled(service, [*good, bad])
    assert outcomes[bad.event_id] == "failed"
    notes = await bench.store.read(lambda tx: tx.query("SELECT id FROM notes"))
    assert {row[0] for row in notes} == {event.event_id for event in good}


async def test_an_effect_is_done_once_for_its_key(bench: Any, service: Service):
    """Events that share an effect key have one effect between them, whatever they share else."""
    calls: list[str] = []

    @service.handler("test.pay", effect="once", key=lambda payload: payload["key"])
    async def on_pay(context: Context, _: dict[str, Any]) -> None:
        calls.append(context.effecting.key)
        await asyncio.sleep(0.05)
        context.effecting.done({"paid": True})

    await bench.lay_out(service)
    await bench.start(service)
    events = [bench.event("test.pay", {"key": f"k{n % 3}"}) for n in range(12)]
    for event in events:
        await bench.publish(event)
    outcomes = list((await bench.settled(service, events)).values())
    assert sorted(calls) == ["k0", "k1", "k2"]
    assert sorted(outcomes) == ["done"] * 3 + ["skipped"] * 9


async def test_an_unknown_outcome_is_asked_about_first(bench: Any, service: Service):
    """After a failure amid a call, the handler does not run before the asker said no."""
    story: list[str] = []

    async def ask(_: Context, __: dict[str, Any]) -> Decision | None:
        story.append("ask")
        return None if story.count("ask") < 2 else Ack()

    @service.handler("test.pay", effect="once", key=lambda p: p["key"], unknown=ask, retry=QUICK)
    async def on_pay(_: Context, __: dict[str, Any]) -> None:
        story.append("call")
        raise TimeoutError("no answer")

    await bench.lay_out(service)
    await bench.start(service)
    event = bench.event("test.pay", {"key": "k"})
    await bench.publish(event)
    assert await bench.settled(service, [event]) == {event.event_id: "done"}
    assert story == ["call", "ask", "call", "ask"]


async def test_an_unknown_outcome_without_an_asker_is_parked(bench: Any, service: Service):
    """Nobody to ask: it is never tried again blindly."""
    calls: list[int] = []

    @service.handler("test.pay", effect="once", key=lambda p: p["key"], retry=QUICK)
    async def on_pay(context: Context, _: dict[str, Any]) -> None:
        calls.append(context.attempt)
        raise TimeoutError("no answer")

    await bench.lay_out(service)
    await bench.start(service)
    event = bench.event("test.pay", {"key": "k"})
    await bench.publish(event)
    assert await bench.settled(service, [event]) == {event.event_id: "failed"}
    assert calls == [1]
    parked = await bench.take(names.failed(service.name))
    assert parked.headers["x-error-type"] == "UnknownOutcome"


async def test_a_handler_that_nothing_feeds_stops_the_start(bench: Any, service: Service):
    """A worker whose topology was not applied says so instead of waiting for ever."""

    @service.handler("test.fine")
    def on_fine(_: Context, __: dict[str, Any]) -> None: ...

    with pytest.raises(TopologyError, match="topology apply"):
        await bench.start(service)


def test_contradictions_are_refused(service: Service):
    """An effect without a key, a pattern taken twice, or state off the lanes is a clear error."""
    with pytest.raises(SettingsError, match="go together"):
        service.handler("test.pay", effect="once")(lambda _context, _payload: None)
    laned = Service(service.name, lanes=Lanes())
    with pytest.raises(SettingsError, match="a lane does not wait"):
        laned.handler("market.tick", effect="once", key=str)(lambda _context, _payload: None)
    service.handler("test.a")(lambda _context, _payload: None)
    with pytest.raises(SettingsError, match="two handlers"):
        service.handler("test.a")(lambda _context, _payload: None)
    with pytest.raises(SettingsError, match="one of pure, idempotent, once"):
        service.handler("test.c", effect="twice")(lambda _context, _payload: None)
    with pytest.raises(SettingsError, match=r"\.on_three must take a context and a payload"):

        @service.handler("test.d")
        def on_three(_: Context, __: dict[str, Any], ___: int) -> None: ...

    with pytest.raises(SettingsError, match="cannot be read from JSON"):

        @service.handler("test.e")
        def on_service(_: Context, __: asyncio.Event) -> None: ...

    with pytest.raises(SettingsError, match="lanes only"):
        service.handler("test.b", state=Size)(lambda _context, _payload: None)
