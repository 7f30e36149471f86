"""A private RabbitMQ node on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

from fleet.broker import install
from fleet.broker.config import Node
from fleet.broker.guarded import Guard
from fleet.broker.running import RunningBroker, await_ready
from fleet.core.errors import BrokerError


class LocalBroker(RunningBroker):
    """A node of our own: own ports on 127.0.0.1, own name, own folder, own epmd.

    `data` is kept and used again by the next one; without it the folder is a temporary one.
    """

    kind = "local"

    def __init__(
        self,
        *,
        data: Path | None = None,
        timeout: float = 90.0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._timeout = timeout
        self._temporary = data is None
        self._folder = _folder(data)
        self._guard: Guard | None = None
        self._lock = _lock(self._folder)
        self._script = install.ensure(say)
        self._erlang, self._epmd = install.find_erlang()
        self._node = Node.of(self._folder)
        self.amqp_url = f"amqp://guest:guest@127.0.0.1:{self._node.amqp}/"
        self.management_url = f"http://127.0.0.1:{self._node.management}"

    def start(self) -> LocalBroker:
        """Start the node and wait until it serves; raises BrokerError, and then nothing runs."""
        try:
            self._node.write(self._folder)
            self._guard = guard = Guard(
                log=self._folder / "console.log",
                env=self._environment(),
                run=[
                    [str(self._epmd), "-address", "127.0.0.1", "-port", str(self._node.epmd)],
                    [str(self._script)],
                ],
                remove=self._folder if self._temporary else None,
                hold=[self._lock],
            )
            self.version = await_ready(self.amqp_url, self.management(), self._timeout, guard.alive)
        except BrokerError as error:
            self._end(keep=True)
            self._unlock()
            raise BrokerError(f"{error} Its logs are in {self._folder}.") from None
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the node and its epmd; the data goes too, unless a folder was given."""
        self._end(keep=False)
        if self._temporary:
            # A killed node's guard was gone before it could be asked to do this.
            shutil.rmtree(self._folder, ignore_errors=True)
        self._unlock()

    def alive(self) -> bool:
        """Whether its server still runs."""
        return self._guard is not None and self._guard.alive()

    def kill(self) -> None:
        """SIGKILL the server; nothing is flushed."""
        if self._guard:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._guard.pids[-1], signal.SIGKILL)
            self._guard.wait()
            self._guard = None

    def restart(self) -> None:
        """Start it again on the same data and ports."""
        self._end(keep=True)
        self.start()

    def _end(self, *, keep: bool) -> None:
        if self._guard:
            self._guard.end(keep=keep)
            self._guard = None

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _environment(self) -> dict[str, str]:
        # Written from nothing: what is set for the machine's own RabbitMQ must not reach ours.
        path = f"{self._erlang}:{install.FOLDERS}"
        return {"PATH": path, "LANG": "C.UTF-8", **self._node.environment(self._folder)}


def _folder(data: Path | None) -> Path:
    if data is None:
        return Path(tempfile.mkdtemp(prefix="fleet-broker-"))
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BrokerError(f"The data folder {data} cannot be made: {error.strerror}.") from None
    return data.resolve()


def _lock(folder: Path) -> int:
    """An open file that locks `folder`; the guard holds it too, until the node has ended."""
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise BrokerError(f"The folder {folder} cannot be used: {error.strerror}.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise BrokerError(f"Another broker uses the folder {folder}: stop it first.") from None
    return lock
