"""The Purple Flea WebSocket stream."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import msgspec
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from fleet.core.backoff import backoff
from fleet.core.redact import redact
from publisher.sources.api import Arrival, Gap
from publisher.sources.trouble import final, reason
from publisher.telling import Telling

TOO_BIG: Final = 1009  # the close code that we send for an over-long frame
TAKEN: Final = 4409  # the close code for "another connection of this agent has come"
TOO_BIG_TRIES: Final = 3
QUOTED: Final = 300  # characters of an error frame in a log line
QUOTED_FROM: Final = 10 * QUOTED
QUEUED_FRAMES: Final = 64

log = structlog.get_logger("publisher.stream")


class Control(msgspec.Struct):
    """A frame of the stream's own talk; it has an action, and no event id."""

    action: str
    eventId: Any = None  # noqa: N815 - the name on the wire
    resumed: bool = True


_control = msgspec.json.Decoder(Control).decode
_subscription = msgspec.json.Encoder().encode


class StreamSource:
    """Events of `agent_id` from the stream at `url`, resumed after the last one after each loss.

    A ping goes out every `ping_s`; while frames are asked for, a pong has `pong_s` to come, and a
    stream without a frame for `silence_s` counts as lost. Reconnects 1 to 60 s apart, beginning
    anew once a first event has come. An event over `max_frame` bytes that comes `TOO_BIG_TRIES`
    times is stepped over, which is told as a Gap.
    """

    def __init__(
        self,
        url: str,
        key: str,
        agent_id: str,
        *,
        topics: Sequence[str] = ("*",),
        ping_s: float = 20.0,
        pong_s: float = 10.0,
        silence_s: float = 60.0,
        first_delay_s: float = 1.0,
        max_delay_s: float = 60.0,
        max_frame: int = 4 << 20,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}", "X-Agent-Id": agent_id}
        self._agent_id = agent_id
        self._topics = list(topics)
        self._ping_s = ping_s
        self._pong_s = pong_s
        self._silence_s = silence_s
        self._first_delay_s = first_delay_s
        self._max_delay_s = max_delay_s
        self._max_frame = max_frame
        self._welcome = False  # whether the platform ever let us in
        self._connected = False
        self._asking = False  # whether somebody waits for a frame now
        self._proved = False  # whether an event has come since the last loss
        self._errors = Telling("the stream tells of an error")
        self._delays = self._fresh_delays()
        self._seen = 0
        self._too_big: tuple[str, int] = ("", 0)

    @property
    def name(self) -> str:
        """The name under which the source's cursor is kept."""
        return f"stream:{self._agent_id}"

    @property
    def connected(self) -> bool:
        """Whether a frame could come now."""
        return self._connected

    async def frames(self, resume_from: Callable[[], str]) -> AsyncGenerator[Arrival, None]:
        """Raw frames and gaps, as Source promises."""
        while True:
            cursor = resume_from()
            after, step_over = self._start_after(cursor)
            try:
                async with self._subscribed(after) as socket:
                    if step_over:
                        yield Gap(cursor, f"an event over {self._max_frame} bytes")
                    async with aclosing(self._arrivals(socket, after)) as arrivals:
                        async for arrival in arrivals:
                            yield arrival
            except (WebSocketException, OSError, TimeoutError) as error:
                await self._wait(error, resume_from())

    async def _arrivals(
        self, socket: ClientConnection, after: str
    ) -> AsyncGenerator[Arrival, None]:
        while True:
            self._asking = True
            raw = await socket.recv(decode=False)
            self._asking = False
            self._seen += 1
            control = _read_control(raw) if b'"action"' in raw else None
            if control is None:
                self._proved = True
                yield raw
            elif control.action == "error":
                self._errors.note(frame=_quoted(raw))
            elif not control.resumed and after:
                yield Gap(after, "the stream could not resume")

    def _fresh_delays(self) -> Iterator[float]:
        return backoff(random.uniform, first=self._first_delay_s, cap=self._max_delay_s)

    def _start_after(self, cursor: str) -> tuple[str, bool]:
        stuck, tries = self._too_big
        if tries < TOO_BIG_TRIES or stuck != cursor:
            return cursor, False
        self._too_big = ("", 0)
        return "", True

    @asynccontextmanager
    async def _subscribed(self, after: str) -> AsyncGenerator[ClientConnection, None]:
        async with connect(
            self._url,
            ssl=(self._tls or True) if self._url.startswith("wss:") else None,
            additional_headers=self._headers,
            compression=None,
            proxy=None,
            ping_interval=None,  # the library's would give up on us while the fleet holds us back
            max_size=self._max_frame,
            max_queue=QUEUED_FRAMES,
            close_timeout=2,
        ) as socket:
            self._welcome = True
            request = {"action": "subscribe", "resumeFrom": after, "topics": self._topics}
            await socket.send(_subscription(request).decode())
            log.info("stream connected", resume_from=after)
            keeper = asyncio.create_task(self._keep_alive(socket))
            self._connected = True
            try:
                yield socket
            finally:
                self._connected = self._asking = False
                keeper.cancel()
                await asyncio.gather(keeper, return_exceptions=True)

    async def _keep_alive(self, socket: ClientConnection) -> None:
        """Ping; cut the line where, while a frame is waited for, no pong or no frame comes."""
        loop = asyncio.get_running_loop()
        seen, since = self._seen, loop.time()
        while True:
            waiting = self._asking
            pong = asyncio.ensure_future(await socket.ping())
            await asyncio.wait([pong], timeout=self._pong_s)
            # The same frame awaited all the time: no pong is stuck behind what nobody has read.
            if waiting and self._asking and self._seen == seen and not pong.done():
                return _cut(socket, "no pong")
            await asyncio.sleep(self._ping_s)
            if self._seen != seen or not self._asking:
                seen, since = self._seen, loop.time()
            elif loop.time() - since >= self._silence_s:
                return _cut(socket, "no frame")

    async def _wait(self, error: Exception, cursor: str) -> None:
        if not self._welcome and (told := final(error)):
            raise told from None
        if self._proved:
            self._delays, self._proved = self._fresh_delays(), False
        delay = next(self._delays)
        if isinstance(error, ConnectionClosed):
            if error.sent is not None and error.sent.code == TOO_BIG:
                stuck, tries = self._too_big
                self._too_big = (cursor, tries + 1 if stuck == cursor else 1)
            if error.rcvd is not None and error.rcvd.code == TAKEN:
                delay = max(delay, self._max_delay_s / 2)  # two that fight would both lose events
        log.warning("stream lost", reason=reason(error), again_in_s=round(delay, 1))
        await asyncio.sleep(delay)


def _cut(socket: ClientConnection, reason: str) -> None:
    log.warning("stream silent", reason=reason)
    socket.transport.abort()


def _quoted(raw: bytes) -> str:
    # Masked before it is cut: half a secret is not known as one.
    return redact(raw.decode("utf-8", "replace")[:QUOTED_FROM])[:QUOTED]


def _read_control(raw: bytes) -> Control | None:
    try:
        control = _control(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return control if control.eventId is None else None
