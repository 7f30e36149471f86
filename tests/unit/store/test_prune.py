"""Pruning takes what nothing can ask about any more, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fleet.core.ulid import make_ulid
from fleet.store import (
    Candidate,
    Claim,
    KeyState,
    Settled,
    Store,
    archive,
    audit,
    bridge,
    effects,
    lanes,
    leases,
)
from fleet.store import prune as pruning
from fleet.store.archive import Archived
from fleet.store.prune import Pruned

Done = Callable[..., Settled]
OLD, CUTOFF, YOUNG = 1_000_000, 2_000_000, 3_000_000


def id_of(number: int, at_ms: int = OLD) -> str:
    """An event's id."""
    return make_ulid(at_ms, number.to_bytes(10, "big"))


async def left(store: Store) -> set[str]:
    """The ids of the journal."""
    return {row.event_id async for page in audit.entries(store, "svc") for row in page}


async def test_only_what_cannot_come_back_goes(store: Store, done: Done):
    """Failed, waiting, archived and young rows stay; so do effects. A dry run counts the same."""
    plain, failed, waiting, archived, late, young = (id_of(number) for number in range(6))
    fresh = id_of(9, YOUNG)
    await store.admit([Candidate("svc", plain, 0, Claim("k", "trade", "h", 9))], 0)
    await store.commit(
        [
            done(plain, at_ms=OLD),
            done(failed, outcome="failed", at_ms=OLD),
            done(waiting, at_ms=OLD),
            done(archived, outcome="expired", at_ms=OLD),
            done(late, outcome="skipped", at_ms=OLD),
            done(young, at_ms=YOUNG),
            done(fresh, at_ms=YOUNG),
        ]
    )
    put_away = Archived("resolved", "q", archived, "d", 0, "t", {}, b"", "n", "o", OLD)
    await store.run(lambda tx: archive.add(tx, [put_away]))
    counted = Pruned(journal=2, kept=3)
    assert await pruning.prune(store, CUTOFF, {"svc": {waiting}}, dry_run=True) == counted
    assert len(await left(store)) == 7
    assert await pruning.prune(store, CUTOFF, {"svc": {waiting}}, dry_run=False) == counted
    assert await left(store) == {failed, waiting, archived, young, fresh}
    assert await store.read(lambda tx: effects.get(tx, "k")) is not None
    again = await pruning.prune(store, CUTOFF, {"svc": {waiting}}, dry_run=False)
    assert again == Pruned(kept=3)


async def test_many_rows_go_page_by_page(store: Store, done: Done):
    """More than a page, over two services; each is known by its name."""
    count = pruning.PAGE * 2 + 7
    for service in ("svc", "other"):
        rows = [done(id_of(number), service=service, at_ms=OLD) for number in range(count)]
        await store.commit(rows)
    services = await store.read(pruning.services)
    assert services == ["other", "svc"]
    pruned = await pruning.prune(store, CUTOFF, dict.fromkeys(services, ()), dry_run=False)
    assert pruned == Pruned(journal=2 * count)
    assert await left(store) == set()


async def test_a_key_gone_quiet_starts_anew(store: Store, done: Done):
    """The state of a key that no event touched for so long goes; a busy one's stays."""
    epoch, _ = await store.run(lambda tx: lanes.take(tx, "svc", "0", "w"))
    stamp = {"lane": "0", "epoch": epoch}
    await store.commit(
        [
            done(id_of(1), **stamp, at_ms=OLD, states=(KeyState("quiet", 1, "q"),)),
            done(id_of(2), **stamp, at_ms=YOUNG, states=(KeyState("busy", 1, "b"),)),
        ]
    )
    pruned = await pruning.prune(store, CUTOFF, {}, dry_run=False)
    assert pruned == Pruned(lane_states=1)
    _, states = await store.run(lambda tx: lanes.take(tx, "svc", "0", "w"))
    assert [state.key for state in states] == ["busy"]


async def test_old_notes_on_frames_nobody_could_read_go(store: Store):
    """They grow with each such frame; young ones stay. A dry run counts the same."""
    lease = await store.run(lambda tx: leases.acquire(tx, "b", "one", OLD, 9))
    assert lease is not None
    notes = [bridge.QuarantinedRow("C", "not JSON", "0f", at_ms) for at_ms in (OLD, OLD, YOUNG)]
    settle = partial(bridge.settle_prefix, source="s", cursor="C", lease=lease, now_ms=OLD)
    await store.run(partial(settle, quarantined=notes))
    for dry_run in (True, False):
        assert await pruning.prune(store, CUTOFF, {}, dry_run=dry_run) == Pruned(quarantined=2)
    assert await store.read(audit.quarantined) == 1
