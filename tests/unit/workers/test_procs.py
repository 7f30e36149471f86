"""What a supervisor does with worker processes: real ones, that stand in for workers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from fleet.core.errors import OperatorError
from tests.waiting import until
from workers import procs
from workers.procs import Command, Procs

ROOT = Path(__file__).parents[3]

WORKER = """
    import asyncio, os, pathlib, signal, sys, time
    from fleet.telemetry.health import Health
    from workers.kept import Keeper

    async def work():
        stop, notes = asyncio.Event(), pathlib.Path(sys.argv[1])
        while notes.exists() and not notes.with_name("go").exists():  # its second life
            time.sleep(0.02)
        if not os.environ.get("DEAF"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        else:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        telling = asyncio.create_task(Keeper(1).tell(Health("w")))
        notes.open("a").write(f"{os.getpid()}\\n")
        await stop.wait()
        notes.open("a").write("drained\\n")

    asyncio.run(work())
"""
FAILS = """
    import os, pathlib, sys
    pathlib.Path(sys.argv[1]).open("a").write("started\\n")
    sys.exit(int(os.environ["CODE"]))
"""


def commands(folder: Path, script: str, count: int, **more: str) -> list[Command]:
    """One command for each process; each notes what it does in `w-1`, `w-2` and so on."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    return [
        Command(
            f"w-{number}",
            [sys.executable, "-c", textwrap.dedent(script), str(folder / f"w-{number}")],
            environment,
        )
        for number in range(1, count + 1)
    ]


def noted(folder: Path) -> list[list[str]]:
    """What each process that was started has noted."""
    return [path.read_text().split() for path in sorted(folder.glob("w-*"))]


@asynccontextmanager
async def running(kept: Procs) -> AsyncIterator[asyncio.Task[int]]:
    """Ready processes, that are asked to stop at the end."""
    stop = asyncio.Event()
    task = asyncio.create_task(kept.run(stop))
    try:
        await until(lambda: not kept.health.reasons())
        yield task
    finally:
        stop.set()
        await task


async def test_all_work_and_all_drain(tmp_path: Path):
    """A stop request reaches each of them, and the supervisor waits for it."""
    async with running(Procs("w", commands(tmp_path, WORKER, 3), 5)) as task:
        assert [len(each) for each in noted(tmp_path)] == [1, 1, 1]
    assert task.result() == 0
    assert [each[1:] for each in noted(tmp_path)] == [["drained"]] * 3


async def test_one_that_is_killed_is_started_anew(tmp_path: Path):
    """The others go on; meanwhile the health names it."""
    kept = Procs("w", commands(tmp_path, WORKER, 2), 5)
    async with running(kept):
        (first,), (second,) = noted(tmp_path)
        os.kill(int(first), signal.SIGKILL)
        await until(lambda: kept.health.reasons().keys() == {"w-1"})
        (tmp_path / "go").touch()
        await until(lambda: not kept.health.reasons())
        assert len(noted(tmp_path)[0]) == 2
        assert noted(tmp_path)[1] == [second]


async def test_what_a_person_must_change_is_said_once(tmp_path: Path):
    """A process that ends with 2 is not started again, nor are the others at all."""
    kept = Procs("w", commands(tmp_path, FAILS, 3, CODE="2"), 5)
    assert await kept.run(asyncio.Event()) == 2
    assert noted(tmp_path) == [["started"]]


async def test_one_that_never_gets_ready_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Not started for ever: the sentence names it and how it ended."""
    monkeypatch.setattr(procs, "TRIES", 2)
    kept = Procs("w", commands(tmp_path, FAILS, 2, CODE="7"), 5)
    with pytest.raises(OperatorError, match=r"w-1 ended 2 times before .* code 7"):
        await kept.run(asyncio.Event())
    assert noted(tmp_path) == [["started", "started"]]


async def test_one_that_does_not_drain_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The grace has an end, for the supervisor has one too."""
    monkeypatch.setattr(procs, "MARGIN_S", 0.2)
    async with running(Procs("w", commands(tmp_path, WORKER, 1, DEAF="1"), 0.2)):
        pass
    ((pid,),) = noted(tmp_path)
    assert not psutil.pid_exists(int(pid))


async def test_none_outlives_a_killed_supervisor(tmp_path: Path):
    """They notice by themselves, and drain."""
    script = f"""
        import asyncio, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_procs import WORKER, Procs, commands
        kept = Procs("w", commands(Path({str(tmp_path)!r}), WORKER, 2), 5)
        asyncio.run(kept.run(asyncio.Event()))
    """
    with subprocess.Popen(  # noqa: ASYNC220 - our own command, and it returns at once
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    ) as supervisor:
        await until(lambda: len(noted(tmp_path)) == 2 and all(noted(tmp_path)))
        supervisor.kill()
    await until(lambda: [each[1:] for each in noted(tmp_path)] == [["drained"]] * 2)
    pids = [int(each[0]) for each in noted(tmp_path)]
    await until(lambda: not any(map(psutil.pid_exists, pids)))
