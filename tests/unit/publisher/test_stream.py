"""The stream source against real WebSocket servers that misbehave in every way we know."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from itertools import islice
from typing import Any

import pytest
import structlog
from structlog import DropEvent
from structlog.testing import capture_logs
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from fleet.core.errors import SettingsError
from fleet.core.ulid import make_ulid
from publisher.sources.api import Arrival, Gap
from publisher.sources.stream import StreamSource

Script = Callable[[ServerConnection, dict[str, Any]], Awaitable[None]]
DEADLINE_S = 60
IDS = [make_ulid(1_790_000_000_000 + number, bytes(10)) for number in range(10)]


def event(number: int, text: str = "") -> str:
    """An event as the platform sends it."""
    return json.dumps({"eventId": IDS[number], "type": "a.b", "payload": {"text": text}})


def subscribed(*, resumed: bool = True) -> str:
    """The server's answer to a subscription."""
    return json.dumps({"action": "subscribed", "resumed": resumed, "oldest": IDS[0]})


@asynccontextmanager
async def server(*scripts: Script) -> AsyncGenerator[tuple[str, list[dict[str, Any]]], None]:
    """A server that plays one script per connection, the last one again and again."""
    requests: list[dict[str, Any]] = []

    async def handle(socket: ServerConnection) -> None:
        request = json.loads(await socket.recv())
        headers = socket.request.headers if socket.request else {}
        requests.append(request | {"headers": dict(headers)})
        await scripts[min(len(requests), len(scripts)) - 1](socket, request)

    async with serve(handle, "127.0.0.1", 0, close_timeout=0.1) as running:
        port = running.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}/api/stream", requests


def source(url: str, **changes: Any) -> StreamSource:
    """A source that is impatient, so that the tests need not be patient."""
    quick: dict[str, Any] = {"first_delay_s": 0.01, "max_delay_s": 0.05, "ping_s": 0.05}
    return StreamSource(url, "pf_live_key", "pf_agent_1", **(quick | changes))


async def collect(stream: StreamSource, count: int, cursor: str = "") -> list[str | Gap]:
    """The first arrivals, events by their id; the cursor follows them as the bridge's does."""
    position = cursor
    found: list[str | Gap] = []
    async with asyncio.timeout(DEADLINE_S), aclosing(stream.frames(lambda: position)) as frames:
        async for arrival in frames:
            name = _name(arrival)
            found.append(name)
            position = name if isinstance(name, str) else position
            if len(found) == count:
                break
    return found


def _name(arrival: Arrival) -> str | Gap:
    return arrival if isinstance(arrival, Gap) else str(json.loads(arrival)["eventId"])


def send(*texts: str) -> Script:
    """Send these and hold the line."""

    async def script(socket: ServerConnection, _: dict[str, Any]) -> None:
        for text in texts:
            await socket.send(text)
        await socket.wait_closed()

    return script


async def test_subscribes_with_credentials_and_cursor():
    """Key, agent, topics and the event to go on after are sent; a control frame is no event."""
    async with server(send(subscribed(), event(1), event(2))) as (url, requests):
        assert await collect(source(url, topics=["market.*"]), 2, IDS[0]) == IDS[1:3]
    request = requests[0]
    assert request["resumeFrom"] == IDS[0]
    assert request["topics"] == ["market.*"]
    headers = {name.lower(): value for name, value in request["headers"].items()}
    assert headers["authorization"] == "Bearer pf_live_key"
    assert headers["x-agent-id"] == "pf_agent_1"


async def test_a_server_without_control_frames():
    """Events alone are enough."""
    async with server(send(event(0), event(1))) as (url, _):
        assert await collect(source(url), 2) == IDS[:2]


async def test_an_event_that_speaks_of_actions_is_an_event():
    """Only a frame without an event id is control."""
    text = json.dumps({"eventId": IDS[0], "type": "a.b", "action": "subscribed", "resumed": False})
    async with server(send(text)) as (url, _):
        assert await collect(source(url), 1, IDS[1]) == IDS[:1]


async def test_resumes_after_a_loss():
    """After a loss it goes on behind the last event that it gave."""

    async def drop(socket: ServerConnection, _: dict[str, Any]) -> None:
        await socket.send(event(0))
        await socket.send(event(1))
        await socket.close(1011)

    async with server(drop, send(event(2))) as (url, requests):
        assert await collect(source(url), 3) == IDS[:3]
    assert [request["resumeFrom"] for request in requests] == ["", IDS[1]]


async def test_what_cannot_be_resumed_is_a_gap():
    """Where the server has forgotten our place, the gap is told before the next event."""
    async with server(send(subscribed(resumed=False), event(5))) as (url, _):
        gap, after = await collect(source(url), 2, IDS[0])
    assert isinstance(gap, Gap)
    assert gap.after == IDS[0]
    assert after == IDS[5]


async def test_a_silent_stream_is_left():
    """A server that answers pings but sends nothing for too long is given up and tried anew."""
    async with server(send(), send(event(0))) as (url, requests):
        assert await collect(source(url, silence_s=0.1), 1) == IDS[:1]
    assert len(requests) > 1


async def test_a_dead_peer_is_left():
    """A server that answers no ping is given up and tried anew."""
    thawed = asyncio.Event()

    async def freeze(socket: ServerConnection, _: dict[str, Any]) -> None:
        socket.transport.pause_reading()
        await thawed.wait()
        socket.transport.resume_reading()

    async with server(freeze, send(event(0))) as (url, requests):
        assert await collect(source(url, pong_s=0.1), 1) == IDS[:1]
        thawed.set()
    assert len(requests) > 1


async def test_a_slow_reader_is_not_taken_for_a_dead_peer():
    """While nobody asks for frames, the line stays up, whatever piles up in the socket."""
    total = 2000
    big = [event(number % 10, "x" * 10_000) for number in range(total)]
    async with server(send(*big)) as (url, requests):
        stream = source(url, pong_s=0.5, silence_s=0.5)
        count = 0
        async with asyncio.timeout(DEADLINE_S), aclosing(stream.frames(str)) as frames:
            async for _ in frames:
                if count == 5:
                    await asyncio.sleep(1.5)  # three times the patience for a pong
                count += 1
                if count == total:
                    break
    assert len(requests) == 1


async def test_an_over_long_event_is_stepped_over():
    """It can neither kill the source nor hold it: after some tries it becomes a gap."""
    long = send(event(1, "x" * 5000))
    async with server(send(event(0), event(1, "x" * 5000)), long, long, send(event(2))) as (
        url,
        requests,
    ):
        first, gap, after = await collect(source(url, max_frame=1000), 3)
    assert (first, after) == (IDS[0], IDS[2])
    assert isinstance(gap, Gap)
    assert gap.after == IDS[0]
    assert [request["resumeFrom"] for request in requests] == ["", IDS[0], IDS[0], ""]


async def test_another_connection_of_the_agent_is_not_fought():
    """After close 4409 it stays away for long, and comes back in the end."""

    async def take_over(socket: ServerConnection, _: dict[str, Any]) -> None:
        await socket.close(4409, "another connection")

    async with server(take_over, send(event(0))) as (url, requests):
        assert await collect(source(url), 1) == IDS[:1]
    assert len(requests) == 2


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (HTTPStatus.UNAUTHORIZED, "PF_AGENT_KEY"),
        (HTTPStatus.FORBIDDEN, "PF_AGENT_KEY"),
        (HTTPStatus.NOT_FOUND, "PF_STREAM_URL"),
    ],
)
async def test_a_refusal_is_the_operators(status: HTTPStatus, words: str):
    """Where the platform never let us in, a person must act; the key is not repeated."""

    def refuse(_: ServerConnection, __: Request) -> Response:
        return Response(status, status.phrase, Headers())

    async with serve(_never, "127.0.0.1", 0, process_request=refuse) as running:
        port = running.sockets[0].getsockname()[1]
        with pytest.raises(SettingsError, match=words) as caught:
            await collect(source(f"ws://127.0.0.1:{port}/"), 1)
    assert "pf_live_key" not in str(caught.value)


async def test_a_page_instead_of_a_stream_is_told_and_tried_again():
    """A web page, or a server in trouble, is one clear line; the stream is taken once it is one."""
    answers = iter([HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE])

    def page(_: ServerConnection, __: Request) -> Response | None:
        status = next(answers, None)
        return Response(status, status.phrase, Headers(), b"<html>") if status else None

    async def script(socket: ServerConnection) -> None:
        await socket.send(event(0))
        await socket.wait_closed()

    with capture_logs() as lines:
        async with serve(script, "127.0.0.1", 0, process_request=page) as running:
            port = running.sockets[0].getsockname()[1]
            assert await collect(source(f"ws://127.0.0.1:{port}/"), 1) == IDS[:1]
    reasons = [line["reason"] for line in lines if line["event"] == "stream lost"]
    assert reasons == [
        f"PF_STREAM_URL answers with HTTP {code} where a WebSocket was asked for"
        for code in (200, 503)
    ]


@pytest.mark.parametrize(
    ("scheme", "answer", "words"),
    [("ws", b"SSH-2.0-x\r\n", "does not speak HTTP"), ("wss", b"SSH-2.0-x\r\n", "not speak TLS")],
)
async def test_what_is_no_stream_is_told(scheme: str, answer: bytes, words: str):
    """A port that speaks something else is named as that, without its raw words."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    told = asyncio.Event()

    def look(_logger: Any, _method: str, line: Any) -> Any:
        if words in line.get("reason", ""):
            told.set()
        raise DropEvent

    structlog.configure(processors=[look])
    async with await asyncio.start_server(talk, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        reading = asyncio.create_task(collect(source(f"{scheme}://127.0.0.1:{port}/"), 1))
        await asyncio.wait_for(told.wait(), DEADLINE_S)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_an_error_of_the_platform_is_told_without_secrets():
    """What the platform says of an error is in the log, bounded and masked, and is no gap."""
    error = json.dumps({"action": "error", "message": "bad key pf_live_secret1", "x": "y" * 9999})
    with capture_logs() as lines:
        async with server(send(subscribed(), error, error, event(1))) as (url, _):
            assert await collect(source(url), 1, IDS[0]) == IDS[1:2]
    told = [line for line in lines if line["event"] == "the stream tells of an error"]
    assert len(told) == 1
    assert "bad key pf_live_***" in told[0]["frame"]
    assert "secret1" not in str(lines)
    assert len(told[0]["frame"]) <= 300


async def test_delays_grow_until_an_event_has_come():
    """A server that accepts and drops is not hammered: a mere connection resets nothing."""

    async def drop(socket: ServerConnection, _: dict[str, Any]) -> None:
        await socket.close(1011)

    async with server(drop, drop, drop, drop, send(event(0))) as (url, _):
        stream = source(url, first_delay_s=0.01, max_delay_s=0.2)
        assert await collect(stream, 1) == IDS[:1]
    assert min(islice(stream._delays, 1)) >= 0.08


async def _never(_: ServerConnection) -> None:
    raise AssertionError("nobody was to be let in")
