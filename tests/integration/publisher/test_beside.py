"""What the bridge publishes beside its source: the time, and prices where the stream had none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fleet.amqp.log import Logged, open_log
from fleet.core.events import read_event
from fleet.store import bindings, firings
from topology import names

AGENT = "pf_agent_sandbox"


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
        leader, standby = world.start_process(), world.start_process()
        await until_logged(world, "clock.health", 2)
        for process in (leader, standby):
            if "bridge leads" in world.told(process):
                process.kill()
                break
        survivor = standby if process is leader else leader
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


async def fill(
    world: Any, feed_over: Any, monkeypatch: pytest.MonkeyPatch, known: set[str]
) -> set[str]:
    """Have a bridge fill in the prices of a platform of its own; the ids of these ticks."""
    async with world.platform(events=300, wait=False) as platform:
        await feed_over(platform)
        monkeypatch.setenv("PF_API_URL", platform.url)
        process = world.start_process()
        await world.until_told(process, "prices filled in")
        told: set[str] = set()

        async def told_of_all() -> bool:
            ticks = await logged(world, "market.tick")
            told.update({message.headers["x-event-id"] for message in ticks} - known)
            return len(told) == len(platform._emitter.board)

        await world.until(told_of_all)
        await world.stop_process(process)
    return told


@pytest.mark.usefixtures("quick")
async def test_a_full_lane_sheds_a_synthetic_tick_by_name(
    world: Any, feed_over: Any, monkeypatch: pytest.MonkeyPatch
):
    """What the log has and a full lane refused is journalled as shed, so it is accounted for."""
    await world.lay_out(lane_max_length=1)
    await world.write(lambda tx: bindings.record(tx, "test", ["market.tick"], 0))
    first = await fill(world, feed_over, monkeypatch, set())
    second = await fill(world, feed_over, monkeypatch, first)

    async def shed_all() -> bool:
        return bool(await world.shed_ids() == second)

    await world.until(shed_all)
