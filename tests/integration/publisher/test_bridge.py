"""The bridge against a real broker and a stand-in platform that keeps its own ledger."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from aiormq import Connection
from structlog.testing import capture_logs
from websockets.asyncio.server import ServerConnection, serve

from fleet.core.payloads import OWN
from fleet.core.ulid import make_ulid
from fleet.store import audit, bindings, open_store
from topology import names

DEADLINE_S = 120
START_MS = 1_780_000_000_000
IDS = [make_ulid(START_MS + number, bytes(10)) for number in range(100)]


async def moved(world: Any, cursor: str) -> bool:
    """Whether the saved cursor is another one by now."""
    return bool(await world.cursor() != cursor)


async def test_every_event_arrives_in_order(world: Any, witness: Any, feed_over: Any):
    """Every id of the ledger is in the log once, in order, and the cursor stands at the last."""
    await world.lay_out()
    async with world.platform(events=1000) as platform:
        async with world.bridge():
            await feed_over(platform)
            await world.until_saved(witness(platform)[-1])
        emitted = witness(platform)
    logged = await world.logged()
    assert sorted(logged) == emitted
    assert await world.counts() == {"received": len(emitted), "published": len(emitted)}


async def test_a_killed_bridge_loses_nothing(world: Any, witness: Any, feed_over: Any, sluice: Any):
    """Killed in mid-stream and started again, it goes on where the cursor stood."""
    await world.lay_out()
    async with world.platform(events=8000, buffer_seconds=600) as platform:
        held = sluice(platform, 0)
        for _ in range(3):
            process = world.start_process()
            before = await world.cursor()
            held.most += 2000  # there is always more to come when it is killed
            await world.until(partial(moved, world, before))
            process.kill()
        held.most = 10_000
        last = world.start_process()
        await feed_over(platform)
        await world.until_saved(witness(platform)[-1])
        await world.stop_process(last)
        emitted = witness(platform)
    assert set(await world.logged()) == set(emitted)
    counts = await world.counts()
    assert counts["received"] == counts["published"] == len(emitted)


async def test_a_killed_broker_loses_nothing(
    fresh_world: Any, fresh_broker: Any, witness: Any, feed_over: Any, sluice: Any
):
    """The broker is killed under load and started again: every id is in a queue at the end.

    The log is not asked: a stream confirms before its disk has it (invariant 1 is about queues).
    """
    world = fresh_world
    await world.lay_out()
    # The first stream of a 4.0 broker that crashes within seconds of declaring it never comes
    # back, although what is published to it is confirmed. A clean restart writes it down.
    await asyncio.to_thread(fresh_broker.restart)
    async with world.platform(events=5000) as platform:
        held = sluice(platform, 1000)
        async with world.bridge():
            await world.until_saved()
            held.most = 3000  # on its way while the broker goes
            await asyncio.to_thread(fresh_broker.kill)
            await asyncio.to_thread(fresh_broker.restart)
            held.most = 10_000
            await feed_over(platform)
            await world.until_saved(witness(platform)[-1])
        emitted = set(witness(platform))
    shed = await world.shed_ids()
    lanes = [names.lane("test", "market.tick", number) for number in range(16)]
    queues = [names.work_queue("test"), *lanes]
    assert await world.take(queues, lambda found: found | shed >= emitted) <= emitted


async def test_a_full_queue_holds_the_bridge_back(world: Any, emitted: Any, feed_over: Any):
    """Durable events wait for room in the work queue; ticks that find none are shed, by name."""
    await world.lay_out(max_length=10, lane_max_length=10)
    bodies: dict[str, int] = {}
    async with world.platform(events=600, script_every=10) as platform:
        async with world.bridge(), asyncio.timeout(DEADLINE_S):
            await feed_over(platform)
            last = emitted(platform)[-1]["id"]
            while await world.cursor() != last:
                for message in await world.drain(names.work_queue("test")):
                    event_id = json.loads(message.body)["eventId"]
                    bodies[event_id] = bodies.get(event_id, 0) + 1
                await asyncio.sleep(0.05)
        for message in await world.drain(names.work_queue("test")):
            bodies[json.loads(message.body)["eventId"]] = 1
        events = emitted(platform)
    durable = {event["id"] for event in events if event["type"] != "market.tick"}
    ticks = {event["id"] for event in events if event["type"] == "market.tick"}
    assert len(durable) > 20
    assert set(bodies) == durable
    shed = await world.shed_ids()
    assert shed
    assert shed <= ticks
    lanes = [names.lane("test", "market.tick", number) for number in range(16)]
    # What was shed for the sake of one queue may still have reached a lane.
    assert await world.take(lanes, lambda found: found | shed == ticks) <= ticks
    counts = await world.counts()
    assert counts["shed"] == len(shed)
    assert counts["received"] == len(events)


async def test_a_second_bridge_takes_over(world: Any, witness: Any, feed_over: Any, sluice: Any):
    """Of two bridges one leads; when it is killed the other goes on, and nothing is missing."""
    await world.lay_out()
    async with world.platform(events=3000) as platform:
        held = sluice(platform, 1000)
        both = [world.start_process() for _ in range(2)]
        await world.until_saved()
        await world.until(lambda: any("standing by" in world.told(each) for each in both))
        leader = await world.leader()
        leader.kill()
        held.most = 10_000
        await feed_over(platform)
        await world.until_saved(witness(platform)[-1])
        (other,) = (each for each in both if each is not leader)
        assert "bridge leads" in await world.stop_process(other)
        emitted = witness(platform)
    assert other.returncode == 0
    assert set(await world.logged()) == set(emitted)


async def test_a_store_that_is_away_only_delays(world: Any, witness: Any, feed_over: Any):
    """While the store cannot be written for longer than the lease, the bridge waits for it."""
    await world.lay_out()
    async with world.platform(events=2000, speed=1000.0) as platform:
        async with world.bridge(ttl_s=1.5):
            await world.until_saved()
            locked, gate = open_store(world.store_url), threading.Event()
            await locked.open()
            holding = asyncio.ensure_future(locked.run(lambda _: gate.wait(DEADLINE_S)))
            await asyncio.sleep(3)
            gate.set()
            await holding
            await locked.close()
            await feed_over(platform)
            await world.until_saved(witness(platform)[-1])
        emitted = witness(platform)
    assert set(await world.logged()) == set(emitted)


def event(number: int, event_type: str = "a.b") -> str:
    """An event as the platform sends it."""
    return json.dumps(
        {
            "eventId": IDS[number],
            "type": event_type,
            "agentId": "pf_agent_sandbox",
            "payload": {},
            "ts": START_MS,
        }
    )


@asynccontextmanager
async def frames(world: Any, *texts: str | bytes) -> AsyncGenerator[None, None]:
    """A platform that sends exactly these frames."""

    async def handle(socket: ServerConnection) -> None:
        await socket.recv()
        for text in texts:
            await socket.send(text)
        await socket.wait_closed()

    async with serve(handle, "127.0.0.1", 0, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        world.stream_url = f"ws://127.0.0.1:{port}/"
        yield


async def test_garbage_is_kept_and_passed(world: Any):
    """Unreadable frames stand in quarantine with their reasons; what comes behind passes."""
    await world.lay_out()
    garbage = [b"\xff\xfe", "{", "NaN", "[]", '{"a":1,"a":2}', "x" * (1 << 20) + "y", ""]
    with capture_logs() as lines:
        async with frames(world, event(1), *garbage, event(2)), world.bridge():
            await world.until_saved(IDS[2])
    assert await world.logged() == IDS[1:3]
    kept = await world.drain(names.QUARANTINE)
    assert len(kept) == len(garbage)
    assert all(message.header.properties.headers["reason"] for message in kept)
    assert {message.header.properties.headers["cursor"] for message in kept} == {IDS[1]}
    assert max(len(message.body) for message in kept) == 1 << 20
    assert await world.counts() == {"received": 9, "published": 2, "quarantined": 7}
    told = [line for line in lines if line["event"] == "unreadable frames went to quarantine"]
    assert [line["count"] for line in told] == [1, 6]
    assert all(line["reason"] for line in told)


async def test_garbage_that_nobody_can_keep_does_not_fill_the_log(world: Any):
    """Quarantine is gone or full: what comes behind passes, and a few lines tell of all of it."""
    await world.lay_out()
    async with Connection(world.amqp_url) as connection:
        await (await connection.channel()).queue_delete(names.QUARANTINE)
    with capture_logs() as lines:
        async with frames(world, *["{"] * 50, event(1)), world.bridge():
            await world.until_saved(IDS[1])
    told = [line for line in lines if line["event"] == "an unreadable frame could not be kept"]
    assert sum(line["count"] for line in told) == 50
    assert len(told) < 25


async def test_the_platform_may_not_speak_for_the_fleet(world: Any):
    """An order or a payment on the stream is kept for a person, and reaches no service.

    What may stand in such a frame is a gap to those who could fill it.
    """
    await world.lay_out()
    forged = [event(1, kind) for kind in sorted(OWN)]
    beside = Listener()
    async with frames(world, *forged, event(2)), world.bridge(beside=[beside]):
        await world.until_saved(IDS[2])
    assert await world.logged() == IDS[2:3]
    kept = await world.drain(names.QUARANTINE)
    reasons = [message.header.properties.headers["reason"] for message in kept]
    assert reasons == [f"{kind} is for the fleet alone to say" for kind in sorted(OWN)]
    assert beside.gaps == len(OWN)


class Listener:
    """Stands beside a bridge, and counts the gaps that it hears of."""

    def __init__(self) -> None:
        self.gaps = 0

    def gap(self) -> None:
        """Hear of one."""
        self.gaps += 1

    async def run(self) -> None:
        """Do nothing for ever."""
        await asyncio.Event().wait()


async def test_other_lanes_than_were_laid_out(world: Any):
    """A bridge whose PF_PARTITIONS is not the laid out number ends with one sentence, code 2."""
    await world.lay_out()
    await world.write(lambda tx: bindings.record(tx, "test", ["market.tick"], 0, partitions=8))
    process = world.start_process()
    try:
        code = await asyncio.to_thread(process.wait, DEADLINE_S)
    except subprocess.TimeoutExpired:
        raise AssertionError(world.told(process)) from None
    assert code == 2
    assert "PF_PARTITIONS is 16 here, but test was laid out with 8" in world.told(process)
    assert "Traceback" not in world.told(process)


async def test_what_the_platform_forgot_is_a_missed_range(world: Any):
    """A resume that fails is written down by its two ends."""
    await world.lay_out()
    async with frames(world, event(1)), world.bridge():
        await world.until_saved(IDS[1])
    forgot = json.dumps({"action": "subscribed", "resumed": False, "oldest": IDS[8]})
    async with frames(world, forgot, event(8)), world.bridge():
        await world.until_saved(IDS[8])

    (missed,) = await world.look(audit.missed)
    assert (missed.after, missed.before) == (IDS[1], IDS[8])
    assert (await world.counts())["missed"] == 1


async def test_a_stop_request_saves_and_lets_go(world: Any, witness: Any, feed_over: Any):
    """SIGTERM: exit code 0, the cursor at the last event, the lease free at once, no key told."""
    await world.lay_out()
    async with world.platform(events=300) as platform:
        process = world.start_process()
        await feed_over(platform)
        await world.until_saved()
        told = await world.stop_process(process)
        assert process.returncode == 0
        assert "bridge stopped" in told
        assert "pf_live_" not in told
        logged = await world.logged()
        assert await world.cursor() == max(logged)
        (holder,) = await world.look(lambda tx: tx.query("SELECT holder FROM leases"))
        assert holder == ("",)
    assert set(logged) <= set(witness(platform))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"PF_AGENT_KEY": "sk_live_SECRET"}, "sk_live_…"),
        ({"PF_AGENT_KEY": ""}, "PF_AGENT_KEY"),
        ({"PF_STREAM_URL": "http://SECRET/"}, "PF_STREAM_URL"),
        ({"AMQP_URL": "amqp://u:SECRET@HOST/"}, "refuses user 'u'"),
        ({"AMQP_URL": "nonsense SECRET"}, "AMQP_URL"),
        ({"STORE_URL": "oracle://u:SECRET@h/x"}, "STORE_URL"),
        ({}, "fleet topology apply"),
    ],
)
async def test_what_is_wrong_is_one_sentence(world: Any, changes: dict[str, str], told: str):
    """A wrong setting, broker or layout: exit code 2, one line, no traceback, no secret."""
    host = world.amqp_url.rpartition("@")[2].partition("/")[0]
    environment = world.environment()
    environment |= {name: value.replace("HOST", host) for name, value in changes.items()}
    command = [sys.executable, "-m", "fleet", "publisher"]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=120
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("fleet: ")]
    assert done.returncode == 2
    assert len(lines) == 1
    assert told in lines[0]
    assert "Traceback" not in done.stderr
    assert "SECRET" not in done.stderr
