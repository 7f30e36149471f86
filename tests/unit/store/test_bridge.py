"""The bridge's rows: one holder moves the cursor, and what was left out is written beside it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from fleet.core.errors import StateError
from fleet.store import BRIDGE, Lease, Store, Tx, audit, bindings, bridge, cursors, leases


async def acquire(store: Store, holder: str, now: int = 0) -> Lease | None:
    """The lease for a hundred milliseconds, or None."""
    return await store.run(lambda tx: leases.acquire(tx, "bridge:a", holder, now, 100))


async def lease(store: Store, holder: str, now: int = 0) -> Lease:
    """The lease, which must be to be had."""
    got = await acquire(store, holder, now)
    assert got is not None
    return got


async def test_a_lease_has_one_holder(store: Store, other: Store) -> None:
    """The second waits until it expires; then the epoch grows and the first cannot renew."""
    first = await lease(store, "one")
    assert await acquire(other, "two", now=99) is None
    second = await lease(other, "two", now=100)
    assert second.epoch == first.epoch + 1
    assert await store.run(lambda tx: leases.renew(tx, first, 101, 100)) is None
    renewed = await other.run(lambda tx: leases.renew(tx, second, 150, 100))
    assert renewed == Lease("bridge:a", "two", second.epoch, 250)


async def test_a_holder_gets_its_own_lease_again(store: Store) -> None:
    """Acquiring what one has prolongs it under the same epoch; so does renewing it late."""
    first = await lease(store, "one")
    assert await acquire(store, "one", now=50) == Lease("bridge:a", "one", first.epoch, 150)
    late = await store.run(lambda tx: leases.renew(tx, first, 900, 100))
    assert late == Lease("bridge:a", "one", first.epoch, 1_000)


async def test_a_released_lease_is_free_at_once(store: Store, other: Store) -> None:
    """The next holder need not wait, and a release by the former one changes nothing."""
    first = await lease(store, "one")
    await store.run(lambda tx: leases.release(tx, first))
    second = await lease(other, "two", now=1)
    await store.run(lambda tx: leases.release(tx, first))
    assert await store.read(lambda tx: leases.held(tx, second))


async def test_a_stale_epoch_moves_no_cursor(store: Store, other: Store) -> None:
    """Who lost the lease writes nothing: not the cursor, not what came with it."""
    first = await lease(store, "one")
    second = await lease(other, "two", now=100)
    shed = [bridge.ShedRow("E1", "full", 1)]

    def settle(cursor: str, held: Lease) -> Callable[[Tx], None]:
        return partial(
            bridge.settle_prefix, source="s", cursor=cursor, lease=held, now_ms=1, shed=shed
        )

    await other.run(settle("C2", second))
    with pytest.raises(StateError, match="lease"):
        await store.run(settle("C1", first))
    assert await store.read(lambda tx: cursors.get(tx, "s")) == "C2"
    assert await store.read(lambda tx: audit.outcomes(tx, BRIDGE)) == {"shed": 1}


async def test_everything_left_out_is_on_record(store: Store) -> None:
    """Sheds, missed ranges, quarantined frames and counters commit with the cursor."""
    held = await lease(store, "one")
    for _ in range(2):
        await store.run(
            lambda tx: bridge.settle_prefix(
                tx,
                source="s",
                cursor="C9",
                lease=held,
                now_ms=5,
                shed=[bridge.ShedRow("E1", "full", 1), bridge.ShedRow("E2", "full", 1)],
                missed=[bridge.MissedRange("A", "B", 2)],
                quarantined=[bridge.QuarantinedRow("C8", "not JSON", "0f", 3)],
                counts={"received": 4, "published": 1},
            )
        )
    assert await store.read(lambda tx: cursors.get(tx, "s")) == "C9"
    assert await store.read(lambda tx: cursors.get(tx, "none")) == ""
    assert await store.read(lambda tx: audit.outcomes(tx, BRIDGE)) == {"shed": 2}
    assert await store.read(audit.missed) == [bridge.MissedRange("A", "B", 2)]
    assert await store.read(lambda tx: audit.quarantined(tx, "s")) == 2
    counted = await store.read(lambda tx: bridge.counts(tx, "s"))
    assert counted == {"received": 8, "published": 2}


async def test_bindings_are_replaced(store: Store) -> None:
    """What was applied last holds; never applied is not the same as nothing bound."""
    assert await store.read(lambda tx: bindings.of(tx, "svc")) is None
    await store.run(lambda tx: bindings.record(tx, "svc", ["a.*", "b.#"], 0))
    await store.run(lambda tx: bindings.record(tx, "svc", ["b.#", "b.#"], 1))
    assert await store.read(lambda tx: bindings.of(tx, "svc")) == frozenset({"b.#"})
    await store.run(lambda tx: bindings.record(tx, "svc", ["a.*", "b.#"], 2, partitions=4))
    since = {"a.*": 2, "b.#": 0}
    assert await store.read(bindings.fed) == {"svc": since}, "what was bound already keeps its time"
    await store.run(lambda tx: bindings.record(tx, "svc", [], 2))
    assert await store.read(lambda tx: bindings.of(tx, "svc")) == frozenset()


async def test_the_number_of_lanes_is_no_pattern(store: Store) -> None:
    """It is remembered beside the patterns, replaced with them, and None where none was given."""
    await store.run(lambda tx: bindings.record(tx, "svc", ["a.*"], 0, partitions=16))
    await store.run(lambda tx: bindings.record(tx, "other", ["a.*"], 0))
    assert await store.read(lambda tx: bindings.of(tx, "svc")) == frozenset({"a.*"})
    assert await store.read(lambda tx: bindings.partitions(tx, "svc")) == 16
    assert await store.read(lambda tx: bindings.partitions(tx, "other")) is None
    await store.run(lambda tx: bindings.record(tx, "svc", ["a.*"], 1, partitions=8))
    assert await store.read(bindings.lane_counts) == {"svc": 8}
