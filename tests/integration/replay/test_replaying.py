"""What is replayed comes home, once, and to nobody else; everything else stays where it is."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from fleet.core.envelope import ALLOW_STALE, REPLAY_COUNT, RETRY_COUNT
from fleet.core.events import write_event
from topology import names


async def test_a_look_changes_nothing(shop: Any):
    """After a hundred looks every message is there, in its order, and can be replayed."""
    ids = await shop.park([shop.event("wallet.low_balance", {"n": n}) for n in range(30)])
    for _ in range(100):
        assert [entry.id for entry in await shop.entries()] == ids
    report = await shop.run(await shop.plan())
    assert report.sent == 30
    await shop.counted(shop.work, 30)


async def test_only_what_is_selected_goes_home(shop: Any):
    """A run sends what was planned to the queue where it failed; the rest stays, in its order."""
    events = [shop.event("wallet.low_balance" if n % 3 else "wallet.other") for n in range(30)]
    ids = await shop.park(events)
    wanted = [event.event_id for event in events if event.type == "wallet.other"]
    report = await shop.run(await shop.plan(types=("*.other",)))
    assert report.is_complete
    assert [entry.id for entry in await shop.entries()] == [i for i in ids if i not in wanted]
    home = await shop.take_all(shop.work)
    assert [held.headers["x-event-id"] for held in home] == sorted(wanted)
    assert {held.headers[REPLAY_COUNT] for held in home} == {1}
    assert not any(RETRY_COUNT in held.headers for held in home)


@pytest.mark.parametrize("every", [1, 2])
async def test_what_was_sent_does_not_come_back(shop: Any, every: int):
    """Hundreds of acks at once, of all or of every second message: each one counts."""
    events = [shop.event("wallet.low_balance", {"n": n}) for n in range(400)]
    random.shuffle(events)
    ids = await shop.park(events)
    report = await shop.run(await shop.plan(ids=tuple(ids[::every])))
    assert report.sent == 400 // every
    assert {entry.id for entry in await shop.entries()} == set(ids) - set(ids[::every])
    home = await shop.take_all(shop.work)
    assert sorted(held.headers["x-event-id"] for held in home) == sorted(ids[::every])


async def test_a_second_run_does_nothing(shop: Any, wait: Any):
    """What a plan sent is handled once, also where it failed again in between."""
    (shop.folder / "broken").touch()
    ids = await shop.park([shop.event("wallet.low_balance") for _ in range(5)])
    plan = await shop.plan()
    assert (await shop.run(plan)).sent == 5
    async with shop.working():

        async def is_parked_again() -> bool:
            return len([each for each in await shop.entries() if each.replays == 1]) == 5

        await wait(is_parked_again)
        second = await shop.run(plan)
        assert (second.sent, second.gone, second.is_complete) == (0, 5, True)
        (shop.folder / "broken").unlink()
        assert (await shop.run(await shop.plan())).sent == 5
        await wait(lambda: len(shop.world()) == 5)
    assert sorted(shop.world()) == sorted(ids)
    await shop.counted(shop.queue, 0)


async def test_siblings_and_the_log_never_see_a_replay(shop: Any, wait: Any):
    """A replay reaches the one queue where the message failed."""
    ids = await shop.park([shop.event("wallet.low_balance") for _ in range(10)])
    async with shop.working("sibling"), shop.working():
        await shop.run(await shop.plan())
        await wait(lambda: len(shop.world()) == 10)
    assert sorted(shop.world()) == sorted(ids)
    assert shop.world("sibling") == []
    assert await shop.depth(names.LOG) == 0


async def test_the_plan_says_what_becomes_of_each(shop: Any, wait: Any):
    """Run, already done, expired and refused are told apart before anything is sent."""
    done, fresh = (shop.event("wallet.low_balance") for _ in range(2))
    stale = shop.event("market.tick", {"pair": "A", "price": 1, "timestamp_ms": 1}, age_s=100)
    order = {"key": "k", "size_usdc": 10, "pair": "A", "direction": "long", "leverage": 1}
    old_order = shop.event("order.requested", {**order, "timestamp_ms": 1}, age_s=5000)
    nobody = shop.event("escrow.released", {"escrow_id": "e", "amount_usdc": 1})
    lane = names.lane(shop.service.name, "market.tick", 1)
    await shop.park([done])
    async with shop.working():
        await shop.run(await shop.plan())
        await wait(shop.world)
    await shop.park([done, fresh, old_order, nobody, b"\xff no event"])
    await shop.park([stale], home=lane)
    await shop.park([fresh], home="pf.elsewhere")
    counts = (await shop.plan()).counts
    assert counts == {"done": 1, "run": 1, "expired": 2, "refused": 3}
    allowed = await shop.plan(stale=True)
    assert allowed.counts == {"done": 1, "run": 3, "refused": 3}
    report = await shop.run(allowed)
    assert report.sent == 4
    await shop.counted(shop.work, 3)
    await shop.counted(lane, 1)
    (tick,) = await shop.take_all(lane)
    assert tick.headers[ALLOW_STALE] is True


async def test_what_changed_since_the_plan_is_refused(shop: Any):
    """A message with the planned id and another body is not the one that was reviewed."""
    event = shop.event("wallet.low_balance", {"n": 1})
    await shop.park([event])
    plan = await shop.plan()
    await shop.take_all(shop.queue)
    other = json.loads(write_event(event)) | {"payload": {"n": 2}}
    await shop.park([json.dumps(other).encode()])
    report = await shop.run(plan)
    assert (report.sent, list(report.refused)) == (0, [event.event_id])
    await shop.counted(shop.queue, 1)


async def test_a_full_queue_leaves_the_rest(shop: Any, monkeypatch: pytest.MonkeyPatch):
    """What a full work queue refuses stays in the failed queue, and the report names it."""
    monkeypatch.setattr("replay.sending.PATIENCE_S", (0.01,))
    shop.become("small")
    ids = await shop.park([shop.event("wallet.low_balance") for _ in range(2000)])
    report = await shop.run(await shop.plan())
    assert 10 <= report.sent < 2000
    assert len(report.left) == 2000 - report.sent
    await shop.counted(shop.work, report.sent)
    assert sorted(entry.id for entry in await shop.entries()) == sorted(report.left)
    assert set(report.left) < set(ids)


async def test_an_interrupted_run_leaves_the_rest(shop: Any):
    """A stop request ends a run between two messages; a second run does the rest."""
    events = [shop.event("wallet.low_balance") for _ in range(20)]
    ids = await shop.park(sorted(events, key=lambda event: event.event_id))
    plan, stop = await shop.plan(), asyncio.Event()
    sent: list[int] = []

    def progress(count: int) -> None:
        sent.append(count)
        if len(sent) == 3:
            stop.set()

    report = await shop.run(plan, rate=50, stop=stop, progress=progress)
    assert report.stopped == "interrupted"
    assert [entry.id for entry in await shop.entries()] == sorted(ids)[report.sent :]
    assert (await shop.run(plan)).sent == 20 - report.sent
    await shop.counted(shop.work, 20)


async def test_two_runs_at_once_harm_nothing(shop: Any, wait: Any):
    """Two replays of the same messages: each is handled once and none is left."""
    ids = await shop.park([shop.event("wallet.low_balance") for _ in range(200)])
    plan = await shop.plan()
    reports = await asyncio.gather(shop.run(plan), shop.run(plan))
    last = await shop.run(plan)
    assert sum(each.sent for each in reports) + last.sent == 200
    await shop.counted(shop.queue, 0)
    async with shop.working():
        await wait(lambda: len(shop.world()) == 200)
    assert sorted(shop.world()) == sorted(ids)


async def test_what_nobody_wanted_goes_to_who_wants_it_now(shop: Any, wait: Any):
    """The unrouted queue is replayed past the log, to a service that takes the type by now."""
    event = shop.event("escrow.released", {"escrow_id": "e", "amount_usdc": 1})
    async with shop.publisher() as publisher:
        await publisher.publish(names.INGEST, event.type, write_event(event))
        await publisher.publish(names.REDELIVER, "pf.gone", write_event(event))
    assert [item.outcome for item in (await shop.plan(names.UNROUTED)).items] == ["refused"] * 2
    shop.service.handler("escrow.released")(lambda _ctx, _payload: None)
    await shop.apply()

    async def is_logged() -> bool:
        # A stream counts late.
        return bool(await shop.depth(names.LOG) == 1)

    await wait(is_logged)
    plan = await shop.plan(names.UNROUTED)
    assert plan.counts == {"run": 1, "refused": 1}
    assert (await shop.run(plan)).sent == 1
    await shop.counted(names.UNROUTED, 1)
    await shop.counted(shop.work, 1)
    assert await shop.depth(names.LOG) == 1
