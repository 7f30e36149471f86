"""Checkpoints: the newest whole one counts, one writer wins, the one before is kept."""

from __future__ import annotations

import pytest

from fleet.store import Store, checkpoints


async def save(store: Store, body: str, name: str = "a") -> bool:
    """Save what follows the newest."""
    known = await store.read(lambda tx: checkpoints.load(tx, name))
    return await store.run(lambda tx: checkpoints.save(tx, known, body, 5))


async def test_the_last_two_are_kept(store: Store) -> None:
    """Numbered from 1; the newest is loaded."""
    for body in ("one", "two", "three"):
        assert await save(store, body)
    found = await store.read(lambda tx: checkpoints.load(tx, "a"))
    assert (found.seq, found.body, found.is_damaged) == (3, "three", False)
    rows = await store.read(lambda tx: tx.query("SELECT seq FROM checkpoints ORDER BY seq"))
    assert rows == [(2,), (3,)]


async def test_of_two_that_follow_the_same_one_counts(store: Store, other: Store) -> None:
    """Two processes read, both write: the slower one is told and writes nothing."""
    await save(store, "one")
    known = await store.read(lambda tx: checkpoints.load(tx, "a"))
    assert await store.run(lambda tx: checkpoints.save(tx, known, "mine", 6))
    assert not await other.run(lambda tx: checkpoints.save(tx, known, "yours", 6))
    assert (await other.read(lambda tx: checkpoints.load(tx, "a"))).body == "mine"


@pytest.mark.parametrize(
    "damage",
    ["body = 'three!'", "checksum = ''", "at_ms = 0", "seq = 9"],
)
async def test_a_damaged_one_is_refused_and_the_one_before_used(store: Store, damage: str) -> None:
    """Whatever was changed; the next save follows on, and keeps the whole one beside it."""
    for body in ("one", "two", "three"):
        await save(store, body)
    change = f"UPDATE checkpoints SET {damage} WHERE seq = 3"  # noqa: S608 - our own words
    await store.run(lambda tx: tx.execute(change))
    found = await store.read(lambda tx: checkpoints.load(tx, "a"))
    assert (found.seq, found.body, found.is_damaged) == (2, "two", True)
    assert await save(store, "four")
    found = await store.read(lambda tx: checkpoints.load(tx, "a"))
    assert (found.body, found.is_damaged) == ("four", False)
    rows = await store.read(lambda tx: tx.query("SELECT body FROM checkpoints ORDER BY seq"))
    assert rows == [("two",), ("four",)]


async def test_where_none_is_whole_that_is_said(store: Store) -> None:
    """No state, but not as if there had never been one; names do not mix."""
    await save(store, "one")
    await save(store, "other", name="ab")
    await store.run(lambda tx: tx.execute("UPDATE checkpoints SET body = '' WHERE name = 'a'"))
    found = await store.read(lambda tx: checkpoints.load(tx, "a"))
    assert (found.body, found.is_damaged) == ("", True)
    assert await store.read(lambda tx: checkpoints.names(tx, "a")) == ["a", "ab"]
    assert not (await store.read(lambda tx: checkpoints.load(tx, "new"))).is_damaged
