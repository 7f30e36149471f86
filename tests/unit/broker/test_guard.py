"""The guard: what it runs ends with its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleet.broker.guarded import Guard

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
]
OWNER = """
import pathlib, sys
from fleet.broker.guarded import Guard
guard = Guard(run=[{run}], remove=pathlib.Path(sys.argv[1]))
print(guard.pids[0], flush=True)
sys.stdin.read()
"""


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and waits for its parent does not."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False)
    return bool(done.stdout.strip()) and not done.stdout.startswith(b"Z")


def ended(pid: int) -> bool:
    """Whether it ends within a generous time."""
    deadline = time.monotonic() + 60
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("command", [SLEEP, STUBBORN], ids=["polite", "stubborn"])
def test_nothing_outlives_a_killed_owner(tmp_path: Path, number: int, command: list[str]):
    """Kill -9 of the owner ends the process, even one that ignores SIGTERM, and its folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    argv = [sys.executable, "-c", OWNER.format(run=repr(command)), str(folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert alive(pid)
        owner.send_signal(number)
        owner.wait(60)
        assert ended(pid)
    deadline = time.monotonic() + 60
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists()


def test_end_is_final(tmp_path: Path):
    """After `end` the process is gone, the last command has run, and the folder is removed."""
    folder, mark = tmp_path / "data", tmp_path / "mark"
    folder.mkdir()
    guard = Guard(run=[SLEEP], last=[["touch", str(mark)]], remove=folder)
    guard.end()
    assert not alive(guard.pids[0])
    assert mark.exists()
    assert not folder.exists()


def test_a_kept_folder_stays(tmp_path: Path):
    """`end(keep=True)` leaves the folder for the next start."""
    Guard(run=[SLEEP], remove=tmp_path).end(keep=True)
    assert tmp_path.exists()


def test_a_crash_keeps_the_folder(tmp_path: Path):
    """A process that died by itself leaves its data, for a restart, and its log."""
    guard = Guard(run=[SLEEP], remove=tmp_path)
    os.kill(guard.pids[0], signal.SIGKILL)
    guard.wait()
    assert not guard.alive()
    assert tmp_path.exists()
