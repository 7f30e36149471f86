"""A connection that ends in the middle: what was not committed is done again, and nothing twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from fleet.core.errors import StateError
from fleet.store import Settled, Store, Tx, bindings, facts, open_store, owner
from tests import postgres as postgresql
from tests.integration.store.conftest import Line

Done = Callable[..., Settled]


class Counting:
    """Work that counts up, and knows how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, tx: Tx) -> int:
        """Add one to what is there."""
        self.calls += 1
        old = facts.get(tx, "count")
        count = int(old.value) + 1 if old else 1
        facts.put(tx, facts.Fact("count", str(count), f"E{count:09}"))
        return count


async def count(store: Store) -> int:
    """How far it was counted."""
    found = await store.read(lambda tx: facts.get(tx, "count"))
    return int(found.value) if found else 0


@pytest.mark.parametrize(("cut", "calls"), [("before", 2), ("after", 1)])
async def test_a_commit_whose_answer_is_lost(line: Line, cut: str, calls: int):
    """Made or not made, the store finds out: it counts once, and the caller gets its result."""
    store = open_store(line.url)
    await store.open()
    work = Counting()
    line.cut = cut
    assert await store.run(work) == 1
    assert work.calls == calls
    assert await count(store) == 1
    assert await store.run(Counting()) == 2
    await store.close()


@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize("more", [{}, {"started": True}], ids=["plain", "general"])
async def test_a_journal_row_is_no_twin_of_itself(
    line: Line, done: Done, cut: str, more: dict[str, object]
):
    """A row whose commit had no answer is written, and its writes are done, exactly once."""
    store = open_store(line.url)
    await store.open()
    line.cut = cut
    assert await store.commit([done("E1", **more)]) == ["written"]
    assert await store.commit([done("E1", **more)]) == ["twin"]
    await store.close()


async def test_a_connection_that_ends_before_the_commit(store: Store):
    """The whole group is done again, in order, over another connection."""
    calls: list[str] = []

    def work(name: str) -> Callable[[Tx], None]:
        def write(tx: Tx) -> None:
            calls.append(name)
            bindings.record(tx, name, ["x"], 0)
            if calls == ["a", "b"]:
                tx.query("SELECT pg_terminate_backend(pg_backend_pid())")

        return write

    begun, go = threading.Event(), threading.Event()
    gate = asyncio.ensure_future(store.run(lambda _: begun.set() or go.wait(60)))
    await asyncio.to_thread(begun.wait, 60)
    group = [asyncio.ensure_future(store.run(work(name))) for name in "abc"]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(gate, *group)
    assert calls[:2] == ["a", "b"]
    assert calls[-3:] == ["a", "b", "c"]
    for name in "abc":
        assert await store.read(lambda tx, name=name: bindings.of(tx, name)) == {"x"}


async def test_a_read_whose_connection_ended(store: Store):
    """It is asked again over another one, and nobody hears of it."""
    ((reader,),) = await store.read(lambda tx: tx.query("SELECT pg_backend_pid()"))
    await store.run(lambda tx: tx.query("SELECT pg_terminate_backend(?)", (reader,)))
    assert await store.read(lambda tx: tx.query("SELECT 1")) == [(1,)]


async def test_a_close_does_not_wait_for_ever(line: Line, monkeypatch: pytest.MonkeyPatch):
    """Where nothing is heard any more, the caller hears StateError and the process may end."""
    monkeypatch.setattr(owner, "STOP_S", 0.2)
    store = open_store(line.url)
    await store.open()
    line.cut = "silent"
    waiting = asyncio.ensure_future(store.run(Counting()))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(60):
        await store.close()
    with pytest.raises(StateError):
        await waiting


async def test_a_server_that_is_killed_and_comes_back(
    fresh_postgres: postgresql.Postgres, done: Done
):
    """While it is away everything raises StateError; afterwards nothing that was told is gone."""
    store = open_store(fresh_postgres.url)
    await store.open()
    assert await store.run(Counting()) == 1
    fresh_postgres.kill()
    for call in (
        lambda: store.run(Counting()),
        lambda: store.read(lambda tx: tx.query("SELECT 1")),
        lambda: store.commit([done("E1")]),
    ):
        with pytest.raises(StateError, match="away"):
            await call()
    fresh_postgres.start()
    async with asyncio.timeout(60):
        while True:
            try:
                assert await store.run(Counting()) == 2
                break
            except StateError:
                await asyncio.sleep(0.05)
    assert await count(store) == 2
    await store.close()
