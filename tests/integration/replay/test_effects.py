"""The ledger of effects: what is not known is said by a person, and done again under its key."""

from __future__ import annotations

from typing import Any

from fleet import clock
from fleet.core.events import write_event
from fleet.store import Candidate, Claim, EffectResult, Settled, effects
from topology import names

EFFECTS = ("fleet", "effects")
ORDER = {
    "pair": "A/USD",
    "direction": "long",
    "size_usdc": 10,
    "leverage": 1,
    "timestamp_ms": 1,
    "key": "k1",
}


async def unknown(shop: Any, event_id: str) -> None:
    """An effect whose outcome nobody knows."""
    claim = Claim("k1", "order.requested", "w", clock.now_ms() + 60_000, '{"size": 10}')
    await shop.store.admit([Candidate(shop.service.name, event_id, 0, claim)], 1)
    result = EffectResult("k1", "unknown", error="no answer", holder="w")
    row = Settled(shop.service.name, event_id, "failed", 1, "w", 1, effect=result)
    await shop.store.commit([row])


async def test_an_effect_is_resolved_and_then_retried(shop: Any, wait: Any):
    """Unknown, said to have failed, replayed, done: once, and the ledger tells who said so."""
    order = shop.event("order.requested", ORDER)
    await shop.park([order])
    await unknown(shop, order.event_id)
    (listed,) = await shop.cli("list", "--state", "unknown", "--json", module=EFFECTS)
    assert (listed["key"], listed["error"], listed["attempts"]) == ("k1", "no answer", 1)
    assert (listed["first_ms"], listed["at_ms"]) == (1, 1)
    assert (listed["pending"], listed["resolved"]) == (True, None)
    assert await shop.cli("list", "--state", "done", "--json", module=EFFECTS) == []
    how = ("k1", "--as", "failed", "--note", "asked support", "--by", "ada", "--json")
    assert (await shop.cli("resolve", *how, module=EFFECTS))["state"] == "failed"
    assert "already" in await shop.cli("resolve", *how, module=EFFECTS, code=2)
    shown = await shop.cli("show", "k1", "--json", module=EFFECTS)
    assert shown["effect"]["resolved"]["note"] == "asked support"
    assert "resolved by ada: asked support" in await shop.cli("list", module=EFFECTS)
    (said,) = shown["done"]
    assert (said["operator"], said["before"], said["after"]) == ("ada", "unknown", "failed")
    async with shop.working():
        report = await shop.cli("retry", "k1", "--yes", "--json", module=EFFECTS)
        assert report["sent"] == 1
        await wait(lambda: shop.world() == ["k1"])
    effect = await shop.store.read(lambda tx: effects.get(tx, "k1"))
    assert (effect.state, (await shop.journal())[order.event_id]) == ("done", "done")
    assert "No event" in await shop.cli("retry", "k1", "--yes", module=EFFECTS, code=2)
    done = ("k1", "--as", "failed", "--note", "no")
    assert "done already" in await shop.cli("resolve", *done, module=EFFECTS, code=2)


async def test_an_effect_in_a_worker_s_hands_is_left_alone(shop: Any):
    """While a worker may be calling the venue, nobody says what became of it."""
    now_ms = clock.now_ms()
    claim = Claim("k1", "order.requested", "w", now_ms + 60_000)
    await shop.store.admit([Candidate(shop.service.name, "e", 0, claim)], now_ms)
    how = ("k1", "--as", "done", "--note", "no")
    assert "in the hands" in await shop.cli("resolve", *how, module=EFFECTS, code=2)


async def test_a_done_effect_is_not_done_again(shop: Any, wait: Any):
    """A replay of an event whose effect is done ends as skipped."""
    order = shop.event("order.requested", ORDER)
    async with shop.publisher() as publisher:
        await publisher.publish(names.INGEST, order.type, write_event(order))

    async def is_skipped() -> bool:
        return (await shop.journal()).get(again.event_id) == "skipped"

    async with shop.working():
        await wait(lambda: shop.world() == ["k1"])
        again = shop.event("order.requested", ORDER)
        await shop.park([again])
        plan = await shop.plan()
        assert [item.outcome for item in plan.items] == ["done"]
        await shop.run(plan)
        await wait(is_skipped)
    assert shop.world() == ["k1"]
