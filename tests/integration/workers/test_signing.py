"""With keys, workers believe nobody who cannot sign."""

from __future__ import annotations

from typing import Any

from fleet.core.envelope import EVENT_ID, EVENT_TYPE, event_headers
from fleet.core.errors import NetworkError
from fleet.core.events import write_event
from fleet.core.retry import RetryPolicy
from fleet.core.signature import SIGNATURE, Key, Keys
from topology import names
from workers.context import Context
from workers.registry import Service

OURS, BEFORE, FORGED = "2026:" + "n" * 32, "2025:" + "o" * 32, "2026:" + "f" * 32


def keys(text: str) -> Keys:
    """Who signs with this key."""
    return Keys(Key.read(text))


async def test_what_is_not_signed_by_us_is_failed_unread(bench: Any, service: Service):
    """Unsigned, forged and moved signatures reach no handler; retried and emitted events do.

    The failed ones say why. What the old key signed is believed while that key is known.
    """
    seen: list[str] = []

    @service.handler("test.first", retry=RetryPolicy(attempts=2, base=0.01, cap=0.05))
    def on_first(ctx: Context, _: dict[str, Any]) -> None:
        if ctx.attempt == 1:
            raise NetworkError("once more")
        ctx.emit("test.second", {}, key="a")

    @service.handler("test.second")
    def on_second(ctx: Context, _: dict[str, Any]) -> None:
        seen.append(ctx.event.event_id)

    await bench.lay_out(service)
    await bench.start(service, signing_key=OURS, signing_keys=BEFORE)
    first, second, moved = (bench.event(f"test.{n}") for n in ("first", "second", "second"))
    unsigned, forged, old = (bench.event("test.second") for _ in range(3))
    for event, signer in ((first, OURS), (second, OURS), (forged, FORGED), (old, BEFORE)):
        stamped = keys(signer).stamped(event_headers(event), write_event(event))
        await bench.publish(event, stamped)
        if event is second:
            names_of = {EVENT_ID: moved.event_id, EVENT_TYPE: moved.type}
            await bench.publish(moved, {**stamped, **names_of})
    await bench.publish(unsigned)

    failed = names.failed(service.name)
    reasons = {}
    for _ in range(3):
        message = await bench.take(failed)
        assert message.headers["x-error-type"] == "Signature"
        assert message.headers["x-error-class"] == "data"
        reasons[message.headers[EVENT_ID]] = message.headers["x-error-message"]
    assert reasons == {
        unsigned.event_id: "it is not signed",
        forged.event_id: "its signature is wrong",
        moved.event_id: "its signature is wrong",
    }
    await bench.until(lambda: len(seen) == 3)
    assert {second.event_id, old.event_id} < set(seen)
    assert await bench.depth(failed) == 0


async def test_a_forged_failure_does_not_stand_for_the_true_event(bench: Any, service: Service):
    """Who knows an id before it comes cannot have it skipped as seen."""

    @service.handler("test.done")
    def on_done(_: Context, __: dict[str, Any]) -> None:
        """Be done."""

    await bench.lay_out(service)
    await bench.start(service, signing_key=OURS)
    event = bench.event("test.done")
    await bench.publish(event, {SIGNATURE: "2026:00"})
    assert await bench.settled(service, [event]) == {event.event_id: "failed"}
    await bench.publish(event, keys(OURS).stamped(event_headers(event), write_event(event)))

    async def is_done() -> bool:
        return bool((await bench.journal(service.name))[event.event_id][0] == "done")

    await bench.until(is_done)
