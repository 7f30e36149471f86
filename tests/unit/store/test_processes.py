"""Several processes and a kill: what was reported committed is there, whole."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from fleet.store import Store, Tx, audit, lanes, open_store

WRITER = Path(__file__).with_name("writer.py")
ROOT = WRITER.parents[3]


def start(url: str, *arguments: str) -> subprocess.Popen[str]:
    """A writer in a process of its own."""
    command = [sys.executable, str(WRITER), url, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=_env())


def _env() -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}


async def test_processes_that_write_at_once_lose_nothing(store: Store, store_url: str) -> None:
    """Three writers of one store: every commit succeeds and every row is there."""
    count = 60
    writers = [start(store_url, f"w{n}", str(count)) for n in range(3)]
    said = [writer.communicate(timeout=120)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert [len(lines.split()) for lines in said] == [count] * 3
    rows = [row async for page in audit.entries(store, "svc") for row in page]
    assert Counter(row.worker for row in rows) == {f"w{n}": 2 * count for n in range(3)}


@pytest.mark.parametrize("after", [1, 7, 23])
async def test_kill_9_in_mid_commit(store_url: str, after: int) -> None:
    """All that was reported is there, no batch is half there, and the next owner goes on."""
    opened = open_store(store_url)
    await opened.open()
    await opened.close()
    writer = start(store_url, "w")
    assert writer.stdout is not None
    reported = [int(writer.stdout.readline()) for _ in range(after)]
    writer.kill()
    reported += [int(line) for line in writer.stdout.read().split()]
    writer.wait(timeout=120)
    writer.stdout.close()
    store = open_store(store_url)
    await store.open()
    rows, states = await store.run(_left)
    kept = {int(row.event_id.split("-")[1]) for row in rows}
    assert set(reported) <= kept
    assert len(rows) == 2 * len(kept)
    assert states == [(max(kept), str(max(kept)))]
    if store_url.startswith("sqlite"):
        assert await store.read(lambda tx: tx.query("PRAGMA integrity_check")) == [("ok",)]
    await store.close()


def _left(tx: Tx) -> tuple[list[audit.Entry], list[tuple[int, bytes | str]]]:
    _, states = lanes.take(tx, "svc", "w", "next")
    return audit.page(tx, "svc"), [(state.seq, state.body) for state in states]
