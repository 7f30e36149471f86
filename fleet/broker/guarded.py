"""The owner's end of a guard."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fleet.broker import guard

PATIENCE = 90.0  # seconds for a guard to end everything


class Guard:
    """Processes and clean-up that outlive neither this object's `end` nor this process.

    `log` receives what the processes print; `env` is their whole environment; `hold` are file
    descriptors (locks) that stay open until everything has ended.
    """

    def __init__(
        self,
        *,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        run: Sequence[Sequence[str]] = (),
        last: Sequence[Sequence[str]] = (),
        remove: Path | None = None,
        hold: Sequence[int] = (),
    ) -> None:
        order = {
            "run": [list(argv) for argv in run],
            "last": [list(argv) for argv in last],
            "remove": str(remove) if remove else None,
        }
        # -I -S: nothing of the environment's Python may keep the guard from starting.
        argv = [sys.executable, "-I", "-S", guard.__file__, json.dumps(order)]
        with contextlib.ExitStack() as stack:
            err = stack.enter_context(log.open("ab")) if log else subprocess.DEVNULL
            self._process = subprocess.Popen(  # noqa: S603 - our own guard
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                env=dict(env) if env is not None else None,
                pass_fds=tuple(hold),
                # Ctrl-C reaches the owner first; it decides when this ends.
                start_new_session=True,
            )
        said = self._process.stdout.readline() if self._process.stdout else b""
        self.pids: list[int] = json.loads(said or b"[]")

    def alive(self) -> bool:
        """Whether the guard still watches."""
        return self._process.poll() is None

    def end(self, *, keep: bool = False) -> None:
        """End everything and wait for it; `keep` leaves the folder where it is."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(guard.KEEP if keep else b"", timeout=PATIENCE)

    def wait(self) -> None:
        """Wait until the guard has seen the end of its last process and cleaned up."""
        self._process.wait(PATIENCE)
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()
