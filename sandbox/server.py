"""The stand-in put together: feed, buffer, stream, venue, ledger and their HTTP server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, Self

from aiohttp import web

from fleet import clock
from fleet.core.errors import SettingsError
from sandbox.admin import Admin
from sandbox.buffer import Buffer
from sandbox.faults import Faults
from sandbox.feed import Item, market, weave
from sandbox.ids import Ulids
from sandbox.ledger import Ledger
from sandbox.market import made_up
from sandbox.player import Emitter, Player
from sandbox.rest import LARGEST_BODY, Api, guard
from sandbox.script import Script
from sandbox.settings import SandboxSettings
from sandbox.stream import Stream
from sandbox.tape import Tape, to_stderr
from sandbox.venue import Venue

SHUTDOWN_SECONDS: Final = 1.0


class Sandbox:
    """A stand-in Purple Flea that listens on a port of this machine.

    `start` raises SettingsError for a tape, faults or an address that cannot be used. After it,
    `url` says where it listens.
    """

    def __init__(self, settings: SandboxSettings) -> None:
        self.settings = settings
        self.ledger = Ledger()
        self._buffer = Buffer(
            max_age_ms=int(settings.buffer_seconds * 1000), max_events=settings.buffer_events
        )
        ids = Ulids(os.urandom)
        self._emitter = Emitter(ids, self._buffer, self.ledger, settings.agent_id)
        self._faults = Faults.parse(settings.faults, settings.seed)
        self._stream = Stream(self._buffer, idle=settings.idle_seconds, subscribed=self.begin)
        self._venue = Venue(
            self._emitter.price_of,
            lambda: ids.next(clock.now_ms())[0],
            self.ledger,
            idempotent=settings.idempotency,
        )
        self._tape = settings.trades and Tape(
            settings.trades, strict=settings.strict_tape, report=to_stderr
        )
        self._playing: asyncio.Task[None] | None = None
        self._failed: asyncio.Future[None] | None = None
        self._runner = web.AppRunner(
            self._app(),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=SHUTDOWN_SECONDS,
        )

    @property
    def url(self) -> str:
        """The address of a started stand-in, like http://127.0.0.1:8765."""
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Check the tape, listen, and begin the feed unless it is to wait."""
        if self._tape:
            self._tape.check(self.settings.events)
        self._failed = asyncio.get_running_loop().create_future()
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.settings.host, self.settings.port).start()
        except OSError as error:
            await self._runner.cleanup()
            where = f"{self.settings.host}:{self.settings.port}"
            why = (error.strerror or str(error)).rsplit(": ", 1)[-1]
            raise SettingsError(
                f"The sandbox cannot listen on {where} ({why}); choose another --port."
            ) from error
        if not self.settings.wait:
            self.begin()

    async def stop(self) -> None:
        """End the feed, close every connection and stop listening."""
        if self._playing:
            self._playing.cancel()
            await asyncio.gather(self._playing, return_exceptions=True)
        self._stream.dismiss_all()
        await self._runner.cleanup()

    async def failure(self) -> None:
        """Wait for ever, or raise what stopped the feed before its end."""
        if self._failed is None:
            raise RuntimeError("the sandbox has not been started")
        await self._failed

    def begin(self) -> None:
        """Start the feed, if it has not been started yet."""
        if self._playing is None:
            self._playing = asyncio.create_task(self._player().run())
            self._playing.add_done_callback(self._played)

    def summary(self) -> dict[str, Any]:
        """Counts of what was emitted, refused, done and injected so far."""
        return {
            **self.ledger.summary(),
            "bad_lines": self._tape.bad_lines if self._tape else 0,
            "feed": self._state(),
            "connected": self._stream.connected,
            "connections": self._stream.connections,
            "dropped": self._buffer.dropped,
            "faults": self._faults.summary(),
        }

    def _state(self) -> str:
        if self._playing is None:
            return "waiting"
        return "ended" if self._playing.done() else "running"

    def _played(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    def _player(self) -> Player:
        speed, half = self.settings.speed, self.settings.buffer_events // 2
        return Player(
            self._items(),
            self._emitter.emit,
            speed=None if speed == "max" else speed,
            wake=self._stream.wake,
            # Half of the buffer stays behind what has been read, for a client that comes back.
            room=lambda: self._stream.room(half),
        )

    def _items(self) -> Iterator[Item]:
        seed = self.settings.seed
        trades = (
            self._tape.trades()
            if self._tape
            else made_up(seed, self.settings.start_ms or clock.now_ms())
        )
        script = Script(seed, self.settings.agent_id)
        items = market(islice(trades, self.settings.events))
        return weave(items, script, self.settings.script_every)

    def _app(self) -> web.Application:
        key = self.settings.key.get_secret_value()
        app = web.Application(middlewares=[guard(key)], client_max_size=LARGEST_BODY)
        app.router.add_get("/api/stream", self._stream.handle)
        app.add_routes(Api(self._venue, self._emitter.board, self._faults).routes())
        app.add_routes(Admin(self.ledger, summary=self.summary, begin=self.begin).routes())
        return app
