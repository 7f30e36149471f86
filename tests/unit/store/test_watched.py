"""A watched store says when it cannot be relied upon, and when it can again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fleet.core.errors import StateError
from fleet.store import open_store, watched
from fleet.store.watched import Watched


async def test_a_store_that_is_away_is_in_trouble_until_it_answers(tmp_path: Path):
    """A call that fails gives the reason; the next one that succeeds takes it back."""
    inner = open_store(f"sqlite:///{tmp_path}/s.sqlite3")
    store = Watched(inner)
    with pytest.raises(StateError):
        await store.read(lambda tx: tx.query("SELECT 1"))
    assert "closed" in store.trouble
    await store.open()
    assert await store.read(lambda tx: tx.query("SELECT 1")) == [(1,)]
    assert store.trouble == ""
    await store.close()


async def test_what_the_caller_did_wrong_is_no_trouble_of_the_store(tmp_path: Path):
    """An error of the work itself says nothing of the store."""
    store = Watched(open_store(f"sqlite:///{tmp_path}/s.sqlite3"))
    await store.open()

    def wrong(_: Any) -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await store.run(wrong)
    assert store.trouble == ""
    await store.close()


async def test_a_call_that_waits_for_long_is_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """While a commit waits longer than it may, the store does not keep up; afterwards it does."""
    monkeypatch.setattr(watched, "SLOW_S", 0.0)
    store = Watched(open_store(f"sqlite:///{tmp_path}/s.sqlite3"))
    await store.open()
    loop, begun, held = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def slow(_: Any) -> None:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(held.wait(), loop).result()

    call = asyncio.create_task(store.run(slow))
    await begun.wait()
    assert "has waited" in store.trouble
    held.set()
    await call
    assert store.trouble == ""
    await store.close()
