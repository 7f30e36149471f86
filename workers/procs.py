"""Several worker processes on one machine: started, started anew, asked to stop."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from asyncio.subprocess import Process
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from fleet.core.backoff import backoff
from fleet.core.errors import OperatorError
from fleet.telemetry.health import Health
from workers.kept import MARGIN_S

OPERATOR: Final = 2
"""The exit code of a process that told a person what to change."""
TRIES: Final = 5
"""A process that ended so often without having been ready once is given up."""
FIRST_S: Final = 30.0
"""How long the first one may take to be ready, or to give the broker up, before others follow."""
STEADY_S: Final = 30.0
"""Who lived so long is started anew without a growing delay."""
SILENT_S: Final = 10.0

log = structlog.get_logger("fleet.workers")


@dataclass(frozen=True, slots=True)
class Command:
    """How one worker process is started: its name, command line and environment."""

    name: str
    line: Sequence[str]
    environment: dict[str, str]


class Procs:
    """Keeps a worker process for each command, until it is asked to stop.

    `health` is ready when every one of them is.
    """

    def __init__(self, name: str, commands: Sequence[Command], grace_s: float) -> None:
        self.health = Health(name)
        self._grace_s = grace_s
        self._kept = [_Kept(command) for command in commands]
        for kept in self._kept:
            self.health.check(kept.name, kept.reason)

    async def run(self, stop: asyncio.Event) -> int:
        """Keep them until `stop` is set, then have all drain; the exit code that this comes to.

        One that ends is started anew. Where one tells a person what to change before it has been
        ready once, all end with its code, 2. Raises OperatorError where one ends so five times for
        another reason.
        """
        keeping = asyncio.create_task(self._keep())
        asked = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({keeping, asked}, return_when=asyncio.FIRST_COMPLETED)
            return keeping.result() if keeping.done() else 0
        finally:
            self.health.draining = True
            for task in (keeping, asked):
                task.cancel()
            await asyncio.gather(keeping, asked, return_exceptions=True)
            await asyncio.gather(*(kept.drain(self._grace_s) for kept in self._kept))

    async def _keep(self) -> int:
        """Start the first, then the others: what is wrong for all is said by one."""
        first, *others = self._kept
        tasks = [asyncio.create_task(first.keep())]
        ready = asyncio.create_task(first.was_ready.wait())
        try:
            await asyncio.wait(
                {*tasks, ready}, timeout=FIRST_S, return_when=asyncio.FIRST_COMPLETED
            )
            if not tasks[0].done():
                tasks += [asyncio.create_task(kept.keep()) for kept in others]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in (*tasks, ready):
                task.cancel()
            await asyncio.gather(*tasks, ready, return_exceptions=True)


class _Kept:
    """One process, and what it last said of itself."""

    def __init__(self, command: Command) -> None:
        self.name = command.name
        self.was_ready = asyncio.Event()
        self._command = command
        self._process: Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reasons: dict[str, str] = {}
        self._heard_at: float | None = None

    def reason(self) -> str:
        """Why it is not ready; "" where it is."""
        if self._heard_at is None:
            return "it starts"
        if time.monotonic() - self._heard_at > SILENT_S:
            return f"it has said nothing for {SILENT_S:g} s"
        return "; ".join(f"{part}: {why}" for part, why in self._reasons.items())

    async def keep(self) -> int:
        """Start it, and start it anew; the code 2 of one that told a person what to change."""
        delays, tries = backoff(random.uniform, first=0.5, cap=30.0), 0
        while True:
            began = time.monotonic()
            code = await self._live()
            tries += 1
            if not self.was_ready.is_set():
                # Later on 2 may mean that the broker is away, while the others wait for it.
                if code == OPERATOR:
                    return code
                if tries == TRIES:
                    raise OperatorError(
                        f"The worker process {self.name} ended {TRIES} times before it was ready,"
                        f" the last time with {_ended(code)}; its log says why."
                    )
            if time.monotonic() - began > STEADY_S:
                delays = backoff(random.uniform, first=0.5, cap=30.0)
            delay = next(delays)
            log.error(
                "worker process ended", process=self.name, how=_ended(code), anew_s=round(delay, 1)
            )
            await asyncio.sleep(delay)

    async def drain(self, grace_s: float) -> None:
        """Ask it to stop, and wait until it has; it is killed 10 s after the grace."""
        process, writer = self._process, self._writer
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(grace_s + MARGIN_S):
                    await process.wait()
            except TimeoutError:
                log.error("worker process did not end; it is killed", process=self.name)
                process.kill()
                await process.wait()
        if writer is not None:
            writer.close()

    async def _live(self) -> int:
        """Run it to its end; the code it ended with, negative for a signal."""
        ours, theirs = socket.socketpair()
        with theirs:
            # Ctrl-C is for us: who is told twice might miss how it ends.
            self._process = process = await asyncio.create_subprocess_exec(
                *self._command.line,
                stdin=theirs.fileno(),
                env=self._command.environment,
                process_group=0,
            )
        reader, self._writer = await asyncio.open_connection(sock=ours)
        log.info("worker process started", process=self.name, pid=process.pid)
        hearing = asyncio.create_task(self._hear(reader))
        try:
            code = await process.wait()
        finally:
            hearing.cancel()
            self._heard_at = None
        self._writer.close()
        return code

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while line := await reader.readline():
                with suppress(ValueError):
                    self._reasons = json.loads(line)
                    self._heard_at = time.monotonic()
                    if not self._reasons:
                        self.was_ready.set()


def _ended(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
