"""What the bridge publishes beside its source: the time, and prices where the stream had none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fleet.amqp.connection import Link
from fleet.amqp.log import Logged, open_log
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.errors import PublishNacked
from fleet.core.events import read_event
from fleet.store import bindings, firings
from topology import names

AGENT = "pf_agent_sandbox"
BEFORE = "what was there before"


async def logged(world: Any, kind: str) -> list[Logged]:
    """The messages of a type in the log."""
    found: list[Logged] = []
    async with open_log(world.amqp_url, names.LOG) as log:
        await log.catch_up(found.append)
    return [message for message in found if message.key == kind]


async def until_logged(world: Any, kind: str, count: int) -> list[Logged]:
    """Wait until the log has so many of a type."""
    found: list[Logged] = []

    async def enough() -> bool:
        found[:] = await logged(world, kind)
        return len(found) >= count

    await world.until(enough)
    return found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock and a look at the prices each second; a stream without ticks."""
    monkeypatch.setenv("CLOCK_HEALTH_S", "1")
    monkeypatch.setenv("CLOCK_RECONCILE_S", "0")
    monkeypatch.setenv("PRICE_FILL_S", "1")
    monkeypatch.setenv("PF_TOPICS", "wallet.*")


@pytest.mark.usefixtures("quick")
async def test_prices_fill_the_gap_and_say_so(
    world: Any, feed_over: Any, monkeypatch: pytest.MonkeyPatch
):
    """A stream without ticks: each pair's price once, marked in header and payload, in its lane."""
    await world.lay_out()
    await world.write(lambda tx: bindings.record(tx, "test", ["market.tick"], 0))
    async with world.platform(events=300, wait=False) as platform:
        await feed_over(platform)
        monkeypatch.setenv("PF_API_URL", platform.url)
        pairs = len(platform._emitter.board)
        process = world.start_process()
        ticks = await until_logged(world, "market.tick", pairs)
        await world.until_told(process, "prices filled in")
        await world.stop_process(process)
    again = await logged(world, "market.tick")
    by_id = {message.headers["x-event-id"]: message for message in ticks + again}
    assert len(by_id) == pairs
    for message in by_id.values():
        event = read_event(message.body, 2**47, payload=True)
        assert message.headers["x-synthetic"] is True
        assert event.payload["synthetic"] is True
        lane = names.partition(event.payload["pair"], 16)
        assert message.headers[names.PARTITION] == lane
        quote = msgspec.json.decode(platform._emitter.board[event.payload["pair"]].tick)
        assert event.payload["timestamp_ms"] == quote["timestamp_ms"]


@pytest.mark.usefixtures("quick")
async def test_the_clock_goes_on_through_the_death_of_its_bridge(
    world: Any, monkeypatch: pytest.MonkeyPatch
):
    """Two bridges, the leader killed: firings go on, and each of them is one event."""
    monkeypatch.setenv("PRICE_FILL_S", "0")
    await world.lay_out()
    await world.write(lambda tx: bindings.record(tx, "test", ["clock.*"], 0))
    async with world.platform(events=10) as platform:
        monkeypatch.setenv("PF_API_URL", platform.url)
        both = [world.start_process() for _ in range(2)]
        await until_logged(world, "clock.health", 2)
        leader = await world.leader()
        leader.kill()
        (survivor,) = (each for each in both if each is not leader)
        before = len(await logged(world, "clock.health"))
        found = await until_logged(world, "clock.health", before + 2)
        told = await world.stop_process(survivor)
    assert "bridge leads" in told
    events = [read_event(message.body, 2**47) for message in found]
    firings_made = {event.payload["due_ms"] for event in events}
    assert len({event.event_id for event in events}) == len(firings_made)
    assert all(event.payload["due_ms"] % 1000 == 0 for event in events)
    last = await world.look(lambda tx: firings.last(tx, AGENT))
    assert last["clock.health"] >= max(event.payload["due_ms"] for event in events)


async def fill_lanes(world: Any) -> None:
    """Publish to each lane until it refuses."""
    async with Link(world.amqp_url, "test") as link, ConfirmedPublisher(link) as publisher:
        for number in range(16):
            headers = {names.PARTITION: number, "x-event-id": BEFORE}
            with pytest.raises(PublishNacked):
                await publish_many(publisher, headers)


async def publish_many(publisher: ConfirmedPublisher, headers: dict[str, Any]) -> None:
    """So many that a lane for one is full: a quorum queue counts with a little delay."""
    for _ in range(50):
        await publisher.publish(names.INGEST, "market.tick", b"{}", headers=headers)


@pytest.mark.usefixtures("quick")
async def test_a_full_lane_sheds_a_synthetic_tick_by_name(
    world: Any, feed_over: Any, monkeypatch: pytest.MonkeyPatch
):
    """What the log has and a full lane refused is journalled as shed, so it is accounted for."""
    await world.lay_out(lane_max_length=1)
    await world.write(lambda tx: bindings.record(tx, "test", ["market.tick"], 0))
    await fill_lanes(world)
    async with world.platform(events=300, wait=False) as platform:
        await feed_over(platform)
        monkeypatch.setenv("PF_API_URL", platform.url)
        process = world.start_process()
        await world.until_told(process, "prices filled in")

        async def all_are_shed() -> bool:
            told = {m.headers["x-event-id"] for m in await logged(world, "market.tick")}
            shed = await world.shed_ids()
            return len(shed) == len(platform._emitter.board) and shed == told - {BEFORE}

        await world.until(all_are_shed)
        await world.stop_process(process)
