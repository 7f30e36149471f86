"""The processes of a demo: each the command a user would run, none of which outlives the demo."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from fleet.broker.guarded import Guard
from fleet.core.errors import FleetError, OperatorError

LOOK_S: Final = 0.05
START_S: Final = 60.0


class ChildError(FleetError):
    """A process of the demo ended by itself."""


SAID_WHY: Final = re.compile(r"^fleet: (.+)$", re.MULTILINE)
"""How a command of ours says what a person must change."""


class Child:
    """`fleet` with `words`, in the environment `env`, writing into a log file of `folder`."""

    def __init__(
        self, name: str, words: Sequence[str], env: Mapping[str, str], folder: Path
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._argv = [sys.executable, "-m", "fleet", *words]
        self._env = env
        self._guard: Guard | None = None

    def start(self) -> None:
        """Start it, for the first time or again."""
        # The guard ends it when this process is gone, however it went.
        self._guard = Guard(log=self.log, env=self._env, run=[self._argv])

    def kill(self) -> None:
        """SIGKILL it: nothing is finished, nothing is said. Returns once it is gone."""
        if self._guard is not None:
            with suppress(ProcessLookupError):
                os.kill(self._guard.pids[-1], signal.SIGKILL)
            self._guard.wait()
            self._guard = None

    def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
        if self._guard is not None:
            self._guard.end()
            self._guard = None

    def check(self) -> None:
        """Raise where it ended by itself: OperatorError if it said what to do, else ChildError."""
        if self._guard is None or self._guard.alive():
            return
        said = self._said()
        if why := SAID_WHY.findall(said):
            raise OperatorError(f"{self.name} cannot go on: {why[-1]}")
        last = (said.strip().splitlines() or ["it said nothing"])[-1].strip()
        raise ChildError(f"{self.name} ended by itself: {last}")

    async def says(self, find: Callable[[str], str | None]) -> str:
        """What `find` makes of its log, as soon as it makes anything of it.

        Raises as `check` does where it ends before, ChildError where a minute is not enough.
        """
        deadline = time.monotonic() + START_S
        while (found := find(self._said())) is None:
            self.check()
            if time.monotonic() > deadline:
                raise ChildError(f"{self.name} did not start within {START_S:.0f} s.")
            await asyncio.sleep(LOOK_S)
        return found

    def _said(self) -> str:
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""


async def stop_all(children: Sequence[Child]) -> None:
    """Ask all of them to stop, at the same time, and wait for it."""
    await asyncio.gather(*(asyncio.to_thread(child.stop) for child in children))
