"""One supervised connection to the broker, that comes back for ever."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self

import aiormq
import structlog
from aiormq.abc import AbstractConnection
from yarl import URL

from fleet.amqp.diverter import Diverter, Diverters, DivertingTransport
from fleet.amqp.losses import cancelled, reraise_own_cancellation
from fleet.amqp.reasons import explain, is_final
from fleet.amqp.ring import Ring
from fleet.core.backoff import backoff
from fleet.core.errors import BrokerError

OnConnect = Callable[[AbstractConnection], Awaitable[None]]

LOOK_S: Final = 0.25  # how often a connection that does not say it closed is looked at

log = structlog.get_logger("fleet.amqp")


class Link:
    """A connection named `name` to the broker at `url`, made again whenever it is lost.

    Where `url` names several nodes, with commas between, it is made to whichever is to be had.

    `on_connect` is awaited with each new connection before anybody else sees it: to look at the
    topology again, to open channels. Where it raises, that connection counts as failed.

    The first connection is tried for `patience_s`; after that `start` raises BrokerError with one
    sentence. A refused password or virtual host is final at once. Later losses are retried for
    ever, 0.5 to 10 s apart. A peer that goes silent is noticed after three `heartbeat_s`.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        on_connect: OnConnect | None = None,
        heartbeat_s: int = 10,
        timeout_s: float = 10.0,
        patience_s: float = 10.0,
    ) -> None:
        self._ring = Ring(url)
        self.name = name
        self._on_connect = on_connect
        self._heartbeat_s = heartbeat_s
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._current: AbstractConnection | None = None
        self._diverters = Diverters()
        self._changed = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._burials: set[asyncio.Task[None]] = set()
        self._stopped = False

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

    @property
    def at(self) -> str:
        """The address that was tried last."""
        return self._ring.at

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._current is not None

    @property
    def blocked(self) -> bool:
        """Whether the broker has stopped reading from us: it is out of memory or disk."""
        return self._current is not None and not _done_at_once(self._current.ready())

    async def start(self) -> None:
        """Connect and keep connected. Raises BrokerError where the broker is not to be had."""
        logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # our own lines stand for its
        connection = await self._first()
        self._offer(connection)
        self._supervisor = asyncio.create_task(self._supervise(connection), name=self.name)

    async def stop(self) -> None:
        """Close the connection and stay away. What still waits on it fails."""
        self._stopped = True
        if self._supervisor is not None:
            await cancelled(self._supervisor)
            await asyncio.gather(*self._burials, return_exceptions=True)
        if self._current is not None:
            await _close(self._current)
        self._offer(None)

    async def connection(self) -> AbstractConnection:
        """The present connection; waits for one. Raises BrokerError once the link is stopped."""
        while self._current is None:
            if self._stopped:
                raise BrokerError("The connection to the broker was stopped.")
            await self._changed.wait()
        return self._current

    def diverter(self, connection: AbstractConnection) -> Diverter:
        """What takes deliveries off the wire of one of this link's connections."""
        return self._diverters[connection]

    async def lost(self, connection: AbstractConnection) -> None:
        """Return once `connection` is no longer the present one."""
        while self._current is connection:
            await self._changed.wait()

    def _offer(self, connection: AbstractConnection | None) -> None:
        self._current = connection
        self._changed.set()
        self._changed = asyncio.Event()

    async def _first(self) -> AbstractConnection:
        deadline = time.monotonic() + self._patience_s
        for delay in backoff(random.uniform, first=0.5, cap=5.0):
            try:
                return await self._open()
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - as in `_again`
                reraise_own_cancellation(error)
                trouble = explain(self._ring.at, error)
                if is_final(error) or time.monotonic() + delay > deadline:
                    raise trouble from None
                log.warning("broker not there yet", link=self.name, reason=str(trouble))
            await asyncio.sleep(delay)
        raise AssertionError("backoff is endless")

    async def _supervise(self, connection: AbstractConnection) -> None:
        delays = backoff(random.uniform, first=0.5, cap=10.0)
        while True:
            since = time.monotonic()
            await _end(connection)
            self._offer(None)
            log.warning("broker connection lost", link=self.name)
            if time.monotonic() - since > self._heartbeat_s:
                delays = backoff(random.uniform, first=0.5, cap=10.0)
            self._bury(connection)
            connection = await self._again(next(delays))
            self._offer(connection)
            log.info("broker connection back", link=self.name)

    def _bury(self, connection: AbstractConnection) -> None:
        # aiormq may take seconds to close what is dead; nobody waits for it.
        burial = asyncio.create_task(_close(connection))
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)

    async def _again(self, delay: float) -> AbstractConnection:
        for later in backoff(random.uniform, first=max(delay, 0.5), cap=10.0):
            await asyncio.sleep(delay)
            try:
                return await self._open()
            except Exception as error:  # noqa: BLE001 - whatever fails, the link tries again
                reason = str(explain(self._ring.at, error))
            except asyncio.CancelledError as error:
                reraise_own_cancellation(error)
                reason = "the broker dropped the connection"
            log.warning("broker still away", link=self.name, reason=reason)
            delay = later
        raise AssertionError("backoff is endless")

    async def _open(self) -> AbstractConnection:
        connection = await self._ring.lap(self._connect, self._timeout_s)
        try:
            if self._on_connect is not None:
                await self._on_connect(connection)
        except BaseException:
            await _close(connection)
            raise
        return connection

    async def _connect(self, address: URL) -> AbstractConnection:
        transport = DivertingTransport()
        address = address.update_query(heartbeat=str(self._heartbeat_s), name=self.name)
        connection = await aiormq.connect(address, transport_factory=transport)
        if transport.reader is not None:
            self._diverters[connection] = transport.reader
        return connection


def _done_at_once(coroutine: Coroutine[Any, Any, None]) -> bool:
    try:
        coroutine.send(None)
    except StopIteration:
        return True
    coroutine.close()
    return False


async def _end(connection: AbstractConnection) -> None:
    # `closing` alone would do, were it not for ends that aiormq notices late or never.
    closing = connection.closing
    while connection.is_opened and not closing.done():
        await asyncio.wait([closing], timeout=LOOK_S)


async def _close(connection: AbstractConnection) -> None:
    closing = asyncio.ensure_future(connection.close())
    await asyncio.wait([closing], timeout=5.0)
    if not closing.done():
        closing.cancel()
