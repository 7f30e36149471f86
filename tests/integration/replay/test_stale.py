"""What was to be acted upon in its moment is not acted upon later, unless a person says so."""

from __future__ import annotations

from typing import Any

from fleet import clock
from fleet.core.envelope import ALLOW_STALE, REPLAY_COUNT
from fleet.core.events import write_event
from fleet.store import Candidate, Claim, EffectResult, Settled, effects
from topology import names

ORDER = {"pair": "A/USD", "direction": "long", "size_usdc": 10, "leverage": 1, "timestamp_ms": 1}


async def test_a_stale_replay_is_refused_unless_it_is_allowed(shop: Any, wait: Any):
    """The run says why and leaves it where it is; an operator who means it says so."""
    job = shop.event("job.completed", age_s=120)
    await shop.park([job])
    async with shop.working():
        refused = await shop.cli("run", "--yes", code=1)
        assert "60 s are allowed" in refused
        assert [entry.id for entry in await shop.entries()] == [job.event_id]
        report = await shop.cli("run", "--even-if-stale", "--yes", "--json")
        assert report["sent"] == 1
        await wait(lambda: shop.world() == [job.event_id])


async def test_the_worker_holds_whoever_replays_to_it(shop: Any, wait: Any):
    """A first delivery may be late; a replay of the same age is expired, whoever sent it home."""
    first, replay, allowed = (shop.event("job.completed", age_s=120) for _ in range(3))
    async with shop.publisher() as publisher:
        for event, headers in (
            (first, {}),
            (replay, {REPLAY_COUNT: 1}),
            (allowed, {REPLAY_COUNT: 1, ALLOW_STALE: True}),
        ):
            body = write_event(event)
            await publisher.publish(names.REDELIVER, shop.work, body, headers=headers)

    async def all_there() -> bool:
        return len(await shop.journal()) == 3

    async with shop.working():
        await wait(all_there)
    assert sorted(shop.world()) == sorted([first.event_id, allowed.event_id])
    assert (await shop.journal())[replay.event_id] == "expired"


async def test_a_stale_effect_is_asked_about_and_not_done(shop: Any, wait: Any):
    """Nobody knows whether the old order reached the venue: it is asked; it has not; it is over."""
    order = shop.event("order.requested", {**ORDER, "key": "k1"}, age_s=3000)
    await shop.park([order])
    claim = Claim("k1", "order.requested", "w", clock.now_ms() + 60_000)
    await shop.store.admit([Candidate(shop.service.name, order.event_id, 0, claim)], 1)
    result = EffectResult("k1", "unknown", error="no answer", holder="w")
    row = Settled(shop.service.name, order.event_id, "failed", 1, "w", 1, effect=result)
    await shop.store.commit([row])
    (item,) = (await shop.plan()).items
    assert (item.outcome, "asked first" in item.why) == ("run", True)

    async def is_over() -> bool:
        return (await shop.journal())[order.event_id] == "expired"

    async with shop.working():
        await shop.cli("run", "--yes")
        await wait(is_over)
    effect = await shop.store.read(lambda tx: effects.get(tx, "k1"))
    assert (effect.state, "1200 s are allowed" in effect.error) == ("failed", True)
    assert shop.world() == []
