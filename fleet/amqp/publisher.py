"""Publishing that knows what became of every message."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import structlog
from aiormq.abc import AbstractConnection

from fleet.amqp import frames
from fleet.amqp.access import refusal
from fleet.amqp.confirms import ConfirmChannel, Settled, open_channel
from fleet.amqp.connection import Link
from fleet.amqp.losses import cancelled, reraise_own_cancellation
from fleet.amqp.session import Session
from fleet.core.backoff import backoff
from fleet.core.errors import BrokerError, DataError, PublishError, PublishUnknown

PROVED_S: Final = 10.0
STALLED_S: Final = 5.0
"""A broker that answers nothing for so long does not take what is published."""
_NO_HEADERS: Final[Mapping[str, Any]] = {}

log = structlog.get_logger("fleet.amqp")


class ConfirmedPublisher:
    """Publishes over `channels` channels of `link`, with confirms and the mandatory flag.

    At most `window` messages and `window_bytes` are unconfirmed at a time. Each message is
    answered once, after at most `timeout_s` and a little; what was in flight when a connection was
    lost is unknown, and is not sent again from here. Messages of one `lane` share a channel, so
    they reach the broker in the order in which they were posted.
    """

    def __init__(
        self,
        link: Link,
        *,
        channels: int = 4,
        window: int = 512,
        window_bytes: int = 32 << 20,
        timeout_s: float = 10.0,
        max_body: int = frames.MAX_BODY,
    ) -> None:
        self._link = link
        self._count = channels
        self._window = window
        self._window_bytes = window_bytes
        self._timeout_s = timeout_s
        self._max_body = max_body
        self._in_flight = 0
        self._bytes = 0
        self._turn = 0
        self._answered_at = time.monotonic()
        self._session: Session | None = None
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopped = False
        self._refused = asyncio.Event()
        self.refusal: BrokerError | None = None
        self._supervisor: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin to publish as soon as the link is connected; the caller starts the link."""
        self._supervisor = asyncio.create_task(self._supervise(), name="publisher")

    async def stop(self) -> None:
        """Stop at once; what is still in flight is unknown. `drain` first to wait for it."""
        self._stopped = True
        self._room.set()
        if self._supervisor is not None:
            await cancelled(self._supervisor)

    @property
    def in_flight(self) -> int:
        """How many messages wait for the broker's answer."""
        return self._in_flight

    @property
    def trouble(self) -> str:
        """Why nothing is published now; "" where it is, or would be."""
        if self._session is None:
            return "no connection to the broker"
        if self._link.blocked:
            return "the broker has an alarm, memory or disk, and takes nothing"
        stalled = time.monotonic() - self._answered_at if self._in_flight else 0.0
        return f"{self._in_flight} unanswered for {stalled:.0f} s" if stalled > STALLED_S else ""

    @property
    def free(self) -> bool:
        """Whether `post` may be called now."""
        return (
            self._session is not None
            and self._in_flight < self._window
            and self._bytes < self._window_bytes
            and self._session.has_room(self._window, self._window_bytes)
        )

    async def room(self) -> None:
        """Wait until `post` may be called. Raises PublishUnknown once the publisher is stopped."""
        while not self.free:
            if self._stopped:
                raise PublishUnknown("The publisher was stopped; nothing was sent.")
            self._room.clear()
            await self._room.wait()

    async def refused(self) -> None:
        """Wait until the broker says that our user may not publish; raises that BrokerError.

        Until somebody ends it, the publisher tries on: a permission can be given meanwhile.
        """
        await self._refused.wait()
        if self.refusal is not None:
            raise self.refusal

    async def drain(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight; False where that takes longer than `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        headers: Mapping[str, Any] = _NO_HEADERS,
        expiration_ms: int | None = None,
        lane: int | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Return once the broker has confirmed the message.

        Raises PublishNacked (a queue is full), PublishReturned (no queue takes it),
        PublishUnknown (no answer within `timeout_s`, or the connection was lost in between), or
        DataError (too large, or not to be written) before anything was sent.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        if not self.free:
            await self._room_within(timeout_s)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.post(
            exchange,
            routing_key,
            body,
            headers=headers,
            settled=partial(_resolve, answer),
            expiration_ms=expiration_ms,
            lane=lane,
            timeout_s=timeout_s,
        )
        await answer

    def post(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        settled: Settled,
        headers: Mapping[str, Any] = _NO_HEADERS,
        expiration_ms: int | None = None,
        lane: int | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Send without waiting: `settled` is called once, with None or what `publish` would raise.

        Only while `free`, else it raises PublishUnknown. Raises DataError as `publish` does.
        """
        session = self._session
        if session is None or not self.free:
            raise PublishUnknown("There is no room to publish; nothing was sent.")
        if len(body) > self._max_body:
            raise DataError(f"a body of {len(body)} bytes is over the {self._max_body} allowed")
        if lane is None:
            lane = self._turn = self._turn + 1
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        octets = session.channels[lane % len(session.channels)].frames_of(
            exchange,
            routing_key,
            body,
            headers,
            now_s=int(time.time()),
            expiration_ms=expiration_ms,
            settled=settled,
            deadline=time.monotonic() + timeout_s,
        )
        if not self._in_flight:
            self._answered_at = time.monotonic()
        self._in_flight += 1
        self._idle.clear()
        self._bytes += len(octets)
        session.write(octets)

    def _release(self, count: int, size: int) -> None:
        self._answered_at = time.monotonic()
        self._in_flight -= count
        self._bytes -= size
        # Not at each confirm: a waiter that is woken for many at once fills a whole write.
        if self._in_flight <= self._window * 3 // 4:
            self._room.set()
        if not self._in_flight:
            self._idle.set()

    async def _room_within(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self.room()
        except TimeoutError:
            raise PublishUnknown(
                "There was no room to publish in time; nothing was sent."
            ) from None

    async def _supervise(self) -> None:
        delays = backoff(random.uniform, first=0.5, cap=15.0)
        while connection := await self._next_connection():
            since = time.monotonic()
            try:
                await self._serve(connection)
                reason = "the connection was lost"
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - begin anew
                reraise_own_cancellation(error)
                reason = self._reason(error)
            if time.monotonic() - since > PROVED_S:
                delays = backoff(random.uniform, first=0.5, cap=15.0)
            if connection.is_opened:
                log.warning("publisher channel lost", link=self._link.name, reason=reason)
                await asyncio.sleep(next(delays))
            else:
                await self._link.lost(connection)

    def _reason(self, error: BaseException) -> str:
        refused = refusal(error)
        if refused is None:
            return " ".join(str(part) for part in error.args)
        self.refusal = refused
        self._refused.set()
        return str(refused)

    async def _next_connection(self) -> AbstractConnection | None:
        try:
            return await self._link.connection()
        except BrokerError:  # the link was stopped before us
            self._stopped = True
            self._room.set()
            return None

    async def _serve(self, connection: AbstractConnection) -> None:
        channels: list[ConfirmChannel] = []
        try:
            for _ in range(self._count):
                channel = await open_channel(connection, self._release, self._timeout_s)
                channels.append(channel)
            self._session = Session(connection, channels, self._room.set)
            self._room.set()
            await self._session.run(self._link)
        finally:
            self._session = None
            for channel in channels:
                channel.abandon()
            if connection.is_opened:
                await asyncio.gather(*(each.close() for each in channels), return_exceptions=True)


def _resolve(answer: asyncio.Future[None], error: PublishError | None) -> None:
    if answer.done():  # the caller was cancelled meanwhile
        return
    if error is None:
        answer.set_result(None)
    else:
        answer.set_exception(error)
