"""The event stream over a real WebSocket."""

from __future__ import annotations

import asyncio
import gzip
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import websockets

from fleet.core.ulid import derived_ulid, is_ulid, ulid_ms

DEADLINE = 60.0


async def receive(socket: websockets.ClientConnection) -> Any:
    """The next frame, decoded."""
    async with asyncio.timeout(DEADLINE):
        return msgspec.json.decode(await socket.recv())


async def receive_many(socket: websockets.ClientConnection, count: int) -> list[Any]:
    """The next so many frames, decoded."""
    return [await receive(socket) for _ in range(count)]


async def emitted(client: Any, count: int) -> None:
    """Wait until so many events were emitted."""
    async with asyncio.timeout(DEADLINE):
        while (await client.summary())["emitted"] < count:
            await asyncio.sleep(0.01)


async def close_code(socket: websockets.ClientConnection) -> int | None:
    """The code the server closes with."""
    async with asyncio.timeout(DEADLINE):
        await socket.wait_closed()
    return socket.close_code


async def test_a_new_agent_gets_everything_in_order(start: Any) -> None:
    """All that was emitted arrives once: increasing ULIDs, and the ledger names the same ids."""
    client = await start(events=500, script_every=10)
    async with client.stream() as socket:
        answer = await client.subscribe(socket)
        assert answer["action"] == "subscribed"
        assert answer["resumed"] is True
        summary = await client.until(feed="ended")
        events = await receive_many(socket, summary["emitted"])
    ids = [event["eventId"] for event in events]
    assert all(map(is_ulid, ids))
    assert all(first < second for first, second in pairwise(ids))
    assert all(event["ts"] == ulid_ms(event["eventId"]) for event in events)
    assert {event["agentId"] for event in events} == {"pf_agent_sandbox"}
    ledger = await client.lines("/sandbox/ledger/events")
    assert ledger == [
        {"id": event["eventId"], "type": event["type"], "ts": event["ts"]} for event in events
    ]
    assert summary["by_type"]["market.tick"] == 500


async def test_resume_goes_on_behind_the_last_id(start: Any) -> None:
    """A client that comes back gets exactly what followed its last id."""
    client = await start(events=100)
    async with client.stream() as socket:
        await client.subscribe(socket)
        events = await receive_many(socket, 40)
    async with client.stream() as socket:
        answer = await client.subscribe(socket, resume_from=events[-1]["eventId"])
        assert answer["resumed"] is True
        rest = await receive_many(socket, 60)
    ids = [event["eventId"] for event in events + rest]
    assert ids == [event["id"] for event in await client.lines("/sandbox/ledger/events")]


async def test_resume_says_what_it_cannot_make_good(start: Any) -> None:
    """Where events after the id were dropped, the answer is resumed false and the oldest id."""
    client = await start(events=200, speed=1_000_000, buffer_events=50)
    await client.until(feed="ended")
    first, *_ = await client.lines("/sandbox/ledger/events")
    async with client.stream() as socket:
        answer = await client.subscribe(socket, resume_from=first["id"])
        assert answer["resumed"] is False
        assert (await receive(socket))["eventId"] == answer["oldest"] > first["id"]


async def test_an_id_from_elsewhere_is_not_resumed(start: Any) -> None:
    """An id this stand-in never emitted gets all that is buffered, and resumed false."""
    client = await start(events=5)
    await client.until(feed="ended")
    async with client.stream() as socket:
        answer = await client.subscribe(socket, resume_from=derived_ulid(2**47, "later"))
        assert answer["resumed"] is False
        assert len(await receive_many(socket, 5)) == 5


async def test_events_grow_too_old(start: Any) -> None:
    """What is older than the buffer's age is gone, also when nothing new is emitted."""
    client = await start(events=5, buffer_seconds=0.05)
    await client.until(feed="ended")
    await asyncio.sleep(0.1)
    async with client.stream() as socket:
        assert (await client.subscribe(socket))["oldest"] == ""
    assert (await client.summary())["dropped"] == 5


@pytest.mark.parametrize(
    ("topics", "wanted"),
    [
        (["market.*"], {"market.tick"}),
        (["job.*", "escrow.*"], {"job.completed", "job.failed", "escrow.released",
                                 "escrow.disputed"}),
        (["wallet.low_balance"], {"wallet.low_balance"}),
        (["job.completed", "market.x", "mark.*"], {"job.completed"}),
    ],
)  # fmt: skip
async def test_topics_choose(start: Any, topics: list[str], wanted: set[str]) -> None:
    """Only wanted types arrive, all of them: exact names and domain wildcards."""
    client = await start(events=40, script_every=1, wait=True)
    async with client.stream() as socket:
        await client.subscribe(socket, *topics)
        by_type = (await client.until(feed="ended"))["by_type"]
        count = sum(by_type.get(name, 0) for name in wanted)
        events = await receive_many(socket, count)
        assert {event["type"] for event in events} == wanted
        # The stream answers a ping in order: had there been more, it would be here.
        await (await socket.ping())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await socket.recv()


async def test_a_waiting_feed_begins_with_its_first_client(start: Any) -> None:
    """Nothing is emitted before someone listens; the start can also be asked for."""
    client = await start(wait=True)
    assert (await client.summary())["feed"] == "waiting"
    async with client.stream() as socket:
        assert (await client.summary())["emitted"] == 0
        await client.subscribe(socket)
        await client.until(emitted=100, feed="ended", connected=True)
    await client.until(connected=False)
    other = await start(wait=True)
    for _ in range(2):
        assert (await other.call("POST", "/sandbox/start"))[0] == 200
    await other.until(emitted=100, feed="ended")


async def test_one_connection_per_agent(start: Any) -> None:
    """A second connection of an agent closes the first with 4409; another agent's does not."""
    client = await start()
    async with client.stream() as first, client.stream(X_Agent_Id="pf_agent_other") as other:
        await client.subscribe(first)
        await client.subscribe(other)
        async with client.stream() as second:
            assert await close_code(first) == 4409
            await client.subscribe(second)
            assert len(await receive_many(second, 100)) == 100
            assert len(await receive_many(other, 100)) == 100


@pytest.mark.parametrize(
    "frame",
    ["", "{", "[]", "null", '{"action":"subscribe"}', '{"action":"sub","topics":["*"]}',
     '{"action":"subscribe","topics":[]}', '{"action":"subscribe","topics":[""]}',
     '{"action":"subscribe","topics":"*"}', '{"action":"subscribe","topics":["\\ud800"]}',
     '{"action":"subscribe","topics":["*"],"resumeFrom":"x"}',
     '{"action":"subscribe","topics":["*"],"resumeFrom":5}', b"\xff\xfe", "[" * 60_000],
)  # fmt: skip
async def test_a_garbage_subscription_is_closed(start: Any, frame: str | bytes) -> None:
    """What is no subscription gets 4400, and the next client is served."""
    client = await start()
    async with client.stream() as socket:
        await socket.send(frame)
        assert await close_code(socket) == 4400
        assert socket.close_reason
    async with client.stream() as socket:
        await client.subscribe(socket)
        assert len(await receive_many(socket, 100)) == 100


async def test_a_silent_client_is_dropped_and_a_ping_is_a_sign_of_life(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a frame for the idle time the connection ends; pings alone keep it."""
    loop, ahead_s = asyncio.get_running_loop(), 0.0
    now = loop.time
    # The time passes at a leap: how long this process stands still does not matter then.
    monkeypatch.setattr(loop, "time", lambda: now() + ahead_s)
    client = await start(idle_seconds=300)
    async with client.stream() as socket:
        await client.subscribe(socket)
        for _ in range(4):
            ahead_s += 200
            await (await socket.ping())
        assert socket.state is websockets.State.OPEN
        ahead_s += 301
        assert await close_code(socket) == 4408
    await client.until(connected=False)


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer pf_live_wrong"}, {"Authorization": ""}, {"X_Agent_Id": ""}],
)
async def test_a_stranger_is_refused(start: Any, headers: dict[str, str]) -> None:
    """Without the key or a named agent there is no stream: 401 before any frame."""
    client = await start()
    with pytest.raises(websockets.InvalidStatus, match="401"):
        await client.stream(**headers)


async def test_a_client_that_does_not_read_is_waited_for(start: Any) -> None:
    """At full speed the feed waits for a slow client: all arrives, through a far smaller buffer."""
    client = await start(events=30_000, buffer_events=1000, wait=True)
    async with client.stream(queue=16) as socket:
        await client.subscribe(socket, "market.tick")
        await emitted(client, 2000)
        ids = [event["eventId"] for event in await receive_many(socket, 30_000)]
    ledger = await client.lines("/sandbox/ledger/events")
    assert ids == [event["id"] for event in ledger if event["type"] == "market.tick"]


async def test_a_client_that_falls_out_of_the_buffer_is_told(start: Any) -> None:
    """A paced feed does not wait: who is overtaken is closed with 4410 and can resume honestly."""
    client = await start(events=None, speed=100_000, buffer_events=2000, wait=True)
    async with client.stream(queue=16) as socket:
        await client.subscribe(socket)
        await emitted(client, 60_000)
        async with asyncio.timeout(DEADLINE):
            seen = [event async for event in socket_events(socket)]
        assert socket.close_code == 4410
    assert all(first < second for first, second in pairwise(seen))
    async with client.stream() as socket:
        assert (await client.subscribe(socket, resume_from=seen[-1]))["resumed"] is False


async def socket_events(socket: websockets.ClientConnection) -> Any:
    """The ids that arrive until the server closes."""
    try:
        while True:
            yield msgspec.json.decode(await socket.recv())["eventId"]
    except websockets.ConnectionClosed:
        return


async def test_a_recorded_tape_arrives_whole(start: Any, recorded: Path) -> None:
    """Each recorded trade arrives as one tick, in order, its numbers letter for letter."""
    client = await start(trades=recorded, events=3000, wait=True)
    with gzip.open(recorded, "rt") as file:
        rows = [line.strip().split(",") for line in islice(file, 1, 3001)]
    async with client.stream() as socket:
        await client.subscribe(socket, "market.tick")
        for ts_ms, pair, price, qty in rows:
            async with asyncio.timeout(DEADLINE):
                text = await socket.recv()
            fields = f'"pair":"{pair}","price":{price},"timestamp_ms":{ts_ms},"qty":{qty},'
            assert fields in text


async def test_a_bad_tape_ends_the_stand_in_only_where_it_is_strict(
    start: Any, write_tape: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad lines are counted in the summary and named on stderr; the feed goes on behind them."""
    path = write_tape(["1,A/B,1,1", "nonsense", "2,A/B,2,1"])
    client = await start(trades=path)
    summary = await client.until(feed="ended")
    assert (summary["emitted"], summary["bad_lines"]) == (2, 1)
    assert f"{path}:3: has 1 columns" in capsys.readouterr().err
