"""A process that a supervisor started: it says how it does, and does not outlive that one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from typing import Final

from fleet.telemetry.health import Health

TELL_S: Final = 1.0
MARGIN_S: Final = 10.0
"""How much longer than its grace a process may take to end before it is killed."""


class Keeper:
    """The supervisor, at the other end of our standard input.

    When that closes the supervisor is gone, however it died, and this process gets a SIGTERM:
    it drains. If it has not ended when the grace is over, and 10 s, it is ended.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._line = socket.socket(fileno=os.dup(0))
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)  # what handlers start has no part in this
        os.close(nothing)
        # A thread, so that a handler that blocks the loop, or a start that hangs, ends as well.
        threading.Thread(target=self._follow, name="keeper", daemon=True).start()

    async def tell(self, health: Health) -> None:
        """Say each second why we are not ready, if so; until cancelled."""
        while True:
            line = json.dumps(health.reasons()).encode() + b"\n"
            with suppress(OSError):  # a supervisor that does not listen stops nobody's work
                self._line.send(line, socket.MSG_DONTWAIT)
            await asyncio.sleep(TELL_S)

    def _follow(self) -> None:
        with suppress(OSError):
            while self._line.recv(64):
                pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self._grace_s + MARGIN_S)
        os._exit(1)
