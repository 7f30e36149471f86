"""A worker that runs out of memory ends by itself, and in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest


async def test_a_worker_over_its_memory_drains_and_ends(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
):
    """Exit code 75 and one sentence, which a supervisor and a person understand."""
    monkeypatch.setenv("WATCH_MEMORY_MB", "10")
    fleet.start("worker-1")
    process = fleet._processes["worker-1"]
    async with asyncio.timeout(120):
        while process.poll() is None:
            await asyncio.sleep(0.05)
    assert process.returncode == 75
    log = fleet.log("worker-1")
    assert "MB of memory; 10 MB are allowed" in log
    assert "worker drained" in log
    assert "Traceback" not in log
