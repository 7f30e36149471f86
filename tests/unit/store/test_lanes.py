"""Lanes: the newest owner writes, and finds what its predecessors left."""

from __future__ import annotations

from collections.abc import Callable

from fleet.store import KeyState, Settled, Store, audit, lanes

Done = Callable[..., Settled]


async def take(store: Store, owner: str) -> tuple[int, list[KeyState]]:
    """Make this owner the lane's."""
    return await store.run(lambda tx: lanes.take(tx, "svc", "0", owner))


async def test_an_overtaken_owner_is_fenced(store: Store, other: Store, done: Done) -> None:
    """Nothing that was handled under an older epoch is written; other entries are."""
    old, _ = await take(store, "w1")
    new, _ = await take(other, "w2")
    late = done("E1", lane="0", epoch=old, writes=(lambda _: 1 / 0,))
    verdicts = await store.commit([late, done("E2", lane="0", epoch=new), done("E3")])
    assert verdicts == ["fenced", "written", "written"]
    assert await store.read(lambda tx: audit.outcomes(tx, "svc")) == {"done": 2}
    owners = await store.read(lambda tx: lanes.owners(tx, "svc", ["0", "1"]))
    assert owners == {"0": ("w2", new)}


async def test_a_lane_that_nobody_took_is_fenced(store: Store, done: Done) -> None:
    """An epoch that was never given out writes nothing."""
    assert await store.commit([done("E1", lane="7", epoch=1)]) == ["fenced"]


async def test_the_next_owner_finds_the_last_states(store: Store, done: Done) -> None:
    """The state with the highest sequence of each key, whatever the batch's order."""
    epoch, states = await take(store, "w1")
    assert states == []
    stamp = {"lane": "0", "epoch": epoch}
    await store.commit(
        [
            done("E2", **stamp, states=(KeyState("BTC", 2, b'"b2"'), KeyState("ETH", 1, '"e1"'))),
            done("E1", **stamp, states=(KeyState("BTC", 1, b'"b1"'),)),
        ]
    )
    await store.commit([done("E0", **stamp, states=(KeyState("ETH", 0, "stale"),))])
    _, left = await take(store, "w2")
    assert left == [KeyState("BTC", 2, '"b2"'), KeyState("ETH", 1, '"e1"')]


async def test_a_twin_changes_no_state(store: Store, done: Done) -> None:
    """A tick that was journalled before moves no window."""
    epoch, _ = await take(store, "w1")
    stamp = {"lane": "0", "epoch": epoch}
    await store.commit([done("E1", **stamp, states=(KeyState("BTC", 1, "one"),))])
    await store.commit([done("E1", **stamp, states=(KeyState("BTC", 9, "nine"),))])
    _, left = await take(store, "w1")
    assert left == [KeyState("BTC", 1, "one")]
