"""Group commit: what waits together is committed together and fails alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from fleet.core.errors import LogicError, StateError
from fleet.store import Settled, Store, Tx, bindings


def mark(name: str) -> Callable[[Tx], int]:
    """Work that leaves a mark of this name."""
    return lambda tx: tx.execute("INSERT INTO bindings VALUES ('marks', ?, 0)", (name,))


async def marks(store: Store) -> set[str]:
    """The marks that were left."""
    return set(await store.read(lambda tx: bindings.of(tx, "marks")) or ())


async def together(store: Store, *works: Callable[[Tx], object]) -> list[object]:
    """Run works that all wait behind one, so that they share a group."""
    gate = threading.Event()
    first = asyncio.ensure_future(store.run(lambda _: gate.wait(10)))
    await asyncio.sleep(0)
    rest = [asyncio.ensure_future(store.run(work)) for work in works]
    await asyncio.sleep(0)
    gate.set()
    await first
    return await asyncio.gather(*rest, return_exceptions=True)


async def test_one_that_raises_undoes_only_itself(store: Store) -> None:
    """The others of its group are committed; it gets its own exception."""

    def failing(tx: Tx) -> None:
        mark("half")(tx)
        raise KeyError("mine")

    results = await together(store, mark("a"), failing, mark("b"))
    assert isinstance(results[1], KeyError)
    assert await marks(store) == {"a", "b"}


async def test_one_alone_that_raises_leaves_nothing(store: Store) -> None:
    """Without a group around it, it is undone as well, and the store goes on."""

    def failing(tx: Tx) -> None:
        mark("half")(tx)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await store.run(failing)
    await store.run(mark("after"))
    assert await marks(store) == {"after"}


async def test_a_cancelled_caller_harms_nobody(store: Store) -> None:
    """The rest of its group is committed and told so."""
    gate = threading.Event()
    first = asyncio.ensure_future(store.run(lambda _: gate.wait(10)))
    await asyncio.sleep(0)
    cancelled = asyncio.ensure_future(store.run(mark("cancelled")))
    kept = asyncio.ensure_future(store.run(mark("kept")))
    await asyncio.sleep(0)
    cancelled.cancel()
    gate.set()
    await asyncio.gather(first, kept)
    assert "kept" in await marks(store)


async def test_close_finishes_what_is_queued(
    store_url: str, store: Store, other: Store, done: Callable[..., Settled]
) -> None:
    """Work handed over before the close is durable; after it, StateError."""
    assert store_url
    waiting = [asyncio.ensure_future(other.run(mark(str(n)))) for n in range(50)]
    await asyncio.sleep(0)
    await other.close()
    await asyncio.gather(*waiting)
    assert len(await marks(store)) == 50
    with pytest.raises(StateError, match="closed"):
        await other.commit([done("E1")])
    await other.close()


async def test_a_read_cannot_write(store: Store) -> None:
    """A write in a read is a mistake in the code, and is not done."""
    with pytest.raises(LogicError, match="must not write"):
        await store.read(mark("sneaky"))
    assert await marks(store) == set()


async def test_a_read_sees_what_was_committed_elsewhere(store: Store, other: Store) -> None:
    """What one process was told is committed, another one reads."""
    for name in "abc":
        await store.run(mark(name))
        assert name in await marks(other)


async def test_work_that_raises_stop_iteration_does_not_hang(store: Store) -> None:
    """A caller always gets an answer."""
    with pytest.raises(RuntimeError, match="StopIteration"):
        await store.run(lambda _: next(iter(())))


async def test_nested_savepoints(store: Store) -> None:
    """A savepoint inside a work undoes only its block."""

    def work(tx: Tx) -> None:
        mark("outer")(tx)
        with suppress(KeyError), tx.savepoint():
            mark("inner")(tx)
            raise KeyError

    await store.run(work)
    assert await marks(store) == {"outer"}


async def test_values_are_the_same_in_every_database(store: Store):
    """Numbers of any size, truths, texts and nothing come back as they went in, by either way."""
    rows = [(1, True, "it's ? 50%"), (2**62, False, None), (-3, True, 'é"\\')]

    def work(tx: Tx) -> list[tuple[object, ...]]:
        tx.execute("CREATE TABLE kept (number BIGINT, truth BIGINT, text TEXT)")
        for row in rows:
            tx.execute("INSERT INTO kept VALUES (?, ?, ?)", row)
        tx.bulk(("a", "b", "c"), rows, "INSERT INTO kept SELECT a, b, c FROM rows")
        return tx.query("SELECT number, truth, text FROM kept WHERE truth = ? ORDER BY 1", (True,))

    assert await store.run(work) == [(-3, 1, 'é"\\')] * 2 + [(1, 1, "it's ? 50%")] * 2
