"""The event stream: one WebSocket per agent, read from the buffer at the client's own pace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Annotated, Final, Literal

import msgspec
from aiohttp import ClientConnectionResetError, WSMsgType, web

from fleet import clock
from fleet.core.ulid import is_ulid
from sandbox.buffer import Buffer, Event

BATCH: Final = 256
LARGEST_FRAME: Final = 65_536
CLOSE_SECONDS: Final = 1.0
GOING_AWAY, GARBAGE, IDLE, REPLACED, FELL_BEHIND = 1001, 4400, 4408, 4409, 4410


class Subscribe(msgspec.Struct, frozen=True):
    """The first frame of a client."""

    action: Literal["subscribe"]
    topics: Annotated[
        list[Annotated[str, msgspec.Meta(min_length=1, max_length=300)]],
        msgspec.Meta(min_length=1, max_length=100),
    ]
    resume_from: str | None = msgspec.field(name="resumeFrom", default="")


class Subscribed(msgspec.Struct, frozen=True, tag_field="action", tag="subscribed"):
    """The one control frame, in answer to it."""

    resumed: bool
    oldest: str


class Topics:
    """Which event types a client asked for: exact ones, `domain.*`, or `*` for all."""

    def __init__(self, topics: Iterable[str]) -> None:
        self._exact = frozenset(topics)
        self._starts = tuple(topic[:-1] for topic in self._exact if topic.endswith(".*"))
        self._seen: dict[str, bool] = {}

    def want(self, event_type: str) -> bool:
        """Whether events of this type are wanted."""
        known = self._seen.get(event_type)
        if known is None:
            known = "*" in self._exact or event_type in self._exact
            known = self._seen[event_type] = known or event_type.startswith(self._starts)
        return known


class Connection:
    """One client: its cursor into the buffer, and how its connection ends."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        buffer: Buffer,
        idle: float,
        taken: asyncio.Event,
    ) -> None:
        self.cursor: int | None = None
        self.news = asyncio.Event()
        self._socket = socket
        self._buffer = buffer
        self._idle = idle
        self._taken = taken
        self._tasks: list[asyncio.Task[None]] = []
        self._end: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    def dismiss(self, code: int, reason: str) -> None:
        """Send the client away with a close code; the first reason counts."""
        if not self._end.done():
            self._end.set_result((code, reason))

    async def serve(self, subscribed: Callable[[], None]) -> tuple[int, str]:
        """Talk until the client goes or is sent away; gives the code to close with."""
        self._start(self._listen(subscribed))
        try:
            return await self._end
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None or isinstance(error, ConnectionError):
            self.dismiss(1000, "")
        elif not self._end.done():
            self._end.set_exception(error)

    async def _listen(self, subscribed: Callable[[], None]) -> None:
        while True:
            try:
                message = await self._socket.receive(timeout=self._idle)
            except TimeoutError:
                return self.dismiss(IDLE, f"nothing heard for {self._idle:g} s")
            if message.type is WSMsgType.PING:
                await self._socket.pong(message.data)
            elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                if self.cursor is None and await self._subscribe(message.data):
                    subscribed()
            elif message.type is not WSMsgType.PONG:
                return None

    async def _subscribe(self, data: str | bytes) -> bool:
        wanted = _read(data)
        if isinstance(wanted, str):
            self.dismiss(GARBAGE, wanted)
            return False
        self._buffer.expire(clock.now_ms())
        self.cursor, resumed = self._buffer.resume(wanted.resume_from or "")
        # Read before anything is awaited: the oldest events may be gone a moment later.
        events = self._buffer.read(self.cursor, BATCH)
        answer = Subscribed(resumed=resumed, oldest=self._buffer.oldest)
        await self._socket.send_frame(msgspec.json.encode(answer), WSMsgType.TEXT)
        self._start(self._send(self.cursor, events, Topics(wanted.topics)))
        return True

    async def _send(self, cursor: int, events: list[Event], topics: Topics) -> None:
        # The cursor moves only when the socket has taken the events: a client that reads slowly
        # waits in its own TCP window, and nothing queues up for it here.
        send, text = self._socket.send_frame, WSMsgType.TEXT
        while True:
            for event in events:
                if topics.want(event.type):
                    await send(event.text, text)
            self.cursor = cursor = cursor + len(events)
            self._taken.set()
            await (asyncio.sleep(0) if events else self.news.wait())
            self.news.clear()
            try:
                events = self._buffer.read(cursor, BATCH)
            except LookupError:
                return self.dismiss(FELL_BEHIND, "the buffer has moved on: resume again")


class Stream:
    """The stream endpoint; `idle` is how many seconds a silent client is kept."""

    def __init__(self, buffer: Buffer, *, idle: float, subscribed: Callable[[], None]) -> None:
        self.connections = 0
        self._buffer = buffer
        self._idle = idle
        self._subscribed = subscribed
        self._seats: dict[str, Connection] = {}
        self._read = 0
        self._taken = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether a client is subscribed now."""
        return any(seat.cursor is not None for seat in self._seats.values())

    def wake(self) -> None:
        """Tell every client's connection that there are new events."""
        for seat in self._seats.values():
            seat.news.set()

    def unread(self) -> int:
        """How many events the slowest client has not taken, or the last one when it left."""
        cursors = [seat.cursor for seat in self._seats.values() if seat.cursor is not None]
        self._read = max(min(cursors, default=self._read), self._buffer.first)
        return self._buffer.end - self._read

    async def room(self, limit: int) -> None:
        """Wait until fewer than `limit` events are unread."""
        while self.unread() >= limit:
            self._taken.clear()
            await self._taken.wait()

    def dismiss_all(self) -> None:
        """Send every client away, as a server does that goes down."""
        for seat in self._seats.values():
            seat.dismiss(GOING_AWAY, "the stand-in stops")

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one client; an older connection of the same agent is closed."""
        # Compression would cost more than the whole rest; pings are answered by hand because
        # they count as a sign of life.
        socket = web.WebSocketResponse(
            autoping=False, compress=False, max_msg_size=LARGEST_FRAME, timeout=CLOSE_SECONDS
        )
        await socket.prepare(request)
        seat = Connection(socket, self._buffer, self._idle, self._taken)
        agent = request.headers["X-Agent-Id"]
        if agent in self._seats:
            self._seats[agent].dismiss(REPLACED, "another connection of this agent took over")
        self._seats[agent] = seat
        self.connections += 1
        try:
            code, reason = await seat.serve(self._subscribed)
        finally:
            self.unread()
            if self._seats.get(agent) is seat:
                del self._seats[agent]
            self._taken.set()
        await _close(socket, request, code, reason)
        return socket


async def _close(socket: web.WebSocketResponse, request: web.Request, code: int, why: str) -> None:
    try:
        async with asyncio.timeout(2 * CLOSE_SECONDS):
            await socket.close(code=code, message=why.encode())
    except (TimeoutError, ClientConnectionResetError):
        # A client that does not read cannot be told either.
        if request.transport is not None:
            request.transport.abort()


def _read(data: str | bytes) -> Subscribe | str:
    """The subscription, or one sentence that says why it is none."""
    try:
        wanted = msgspec.json.decode(data, type=Subscribe)
    except (msgspec.DecodeError, UnicodeError) as error:
        return f"no subscription: {error}"[:100]
    if wanted.resume_from and not is_ulid(wanted.resume_from):
        return "resumeFrom is no ULID"
    return wanted
