"""A backup is the store at one moment, and restores as a whole or not at all."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from fleet.core.errors import StoreError
from fleet.store import (
    Candidate,
    Claim,
    KeyState,
    Settled,
    Store,
    Tx,
    archive,
    audit,
    backup,
    bridge,
    facts,
    lanes,
    leases,
    open_store,
    positions,
    replicas,
    schema,
)
from fleet.store.factory import keeper
from fleet.store.positions import Position
from fleet.store.replicas import Pulse, Replica
from tests.waiting import until

Done = Callable[..., Settled]
NOW = 1_780_000_000_000


def write(url: str, path: Path) -> dict[str, int]:
    """Back the store up."""
    with keeper(url, create=False) as store:
        return backup.write(store, path, NOW)


def restore(url: str, path: Path, *, force: bool = False) -> dict[str, int]:
    """Restore it."""
    with keeper(url, create=True) as store:
        return backup.restore(store, path, NOW, force=force)


def rows(path: Path) -> list[bytes]:
    """All lines of a backup but the first, which has its time, and the last, which has its sum."""
    return sorted(gzip.decompress(path.read_bytes()).splitlines()[1:-1])


def left(folder: Path) -> list[str]:
    """The names in a folder."""
    return [path.name for path in folder.iterdir()]


async def fill(store: Store, done: Done) -> None:
    """Something of everything that a fleet writes."""
    epoch, _ = await store.run(lambda tx: lanes.take(tx, "svc", "0", "w"))
    state = (KeyState("BTC", 3, '{"é": "\\n"}'),)
    await store.commit([done("E1", lane="0", epoch=epoch, states=state), done("E2")])
    await store.admit([Candidate("svc", "E3", 0, Claim("k", "trade", "h", 9, '{"a":1}'))], 0)
    lease = await store.run(lambda tx: leases.acquire(tx, "bridge", "b", 0, 100))
    assert lease is not None
    missed = [bridge.MissedRange("A", "B", 2), bridge.MissedRange("C", "D", 2, count=7)]
    lost = [bridge.QuarantinedRow("C8", "not JSON", "0f", 3)]
    settle = {"source": "s", "cursor": "C9", "now_ms": 5, "missed": missed, "quarantined": lost}
    await store.run(lambda tx: bridge.settle_prefix(tx, lease=lease, **settle))  # type: ignore[arg-type]  # by name
    order = Position("p", "agent", "BTC", "long", Decimal("50.10"), Decimal(3), 1)
    await store.run(lambda tx: positions.reserve(tx, order, 3))
    await store.run(lambda tx: facts.put(tx, facts.Fact("f", '"x"', "E1")))
    did = archive.Intervention(1, "me", "resolve", "q", "E1", note="why")
    await store.run(lambda tx: archive.note(tx, [did]))


async def test_a_store_comes_back_as_it_was(
    store: Store, store_url: str, tmp_path: Path, done: Done
):
    """Restored into an empty store and backed up from there, every row is the same."""
    await fill(store, done)
    first, second = tmp_path / "first.gz", tmp_path / "second.gz"
    counted = await asyncio.to_thread(write, store_url, first)
    assert counted["journal"] == 2
    assert first.stat().st_mode & 0o777 == 0o600
    other = f"sqlite:///{tmp_path / 'other.sqlite3'}"
    assert sum((await asyncio.to_thread(restore, other, first)).values()) == sum(counted.values())
    assert await asyncio.to_thread(write, other, second) == counted
    assert rows(first) == rows(second)
    assert first.name in left(tmp_path)
    assert not [name for name in left(tmp_path) if name.endswith(".part")]


async def test_a_restored_store_goes_on(store_url: str, tmp_path: Path, store: Store, done: Done):
    """--force replaces what is there; what numbers its rows goes on behind them."""
    await fill(store, done)
    path = tmp_path / "backup.gz"
    await asyncio.to_thread(write, store_url, path)
    await store.commit([done("E9")])
    with pytest.raises(StoreError, match="not empty"):
        await asyncio.to_thread(restore, store_url, path)
    assert await store.read(lambda tx: audit.outcomes(tx, "svc")) == {"done": 3}
    await asyncio.to_thread(restore, store_url, path, force=True)
    assert await store.read(lambda tx: audit.outcomes(tx, "svc")) == {"done": 2}
    did = archive.Intervention(2, "me", "replay", "q", "E1")
    await store.run(lambda tx: archive.note(tx, [did]))
    assert len(await store.read(archive.interventions)) == 2


async def test_a_backup_is_of_one_moment(store: Store, store_url: str, tmp_path: Path, done: Done):
    """Rows that were committed together are in it together, while others are being written."""
    path, stop = tmp_path / "backup.gz", asyncio.Event()

    async def go_on() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            state = (KeyState("count", number, str(number)),)
            pair = [done(f"E{number:06}-{part}") for part in "ab"]
            await store.commit([pair[0], done(f"S{number:06}", states=state), pair[1]])

    async def begun() -> bool:
        return bool(await store.read(lambda tx: audit.outcomes(tx, "svc")))

    writing = asyncio.ensure_future(go_on())
    await until(begun)
    for _ in range(3):
        await asyncio.to_thread(write, store_url, path)
        there = b"\n".join(rows(path))
        last = there.count(b'"S0')
        assert there.count(b'"E0') == 2 * last > 0
        assert f'["svc","","count",{last},"{last}"'.encode() in there
    stop.set()
    await writing


def copy_of(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """A backup whose text was changed."""
    other = path.with_name("changed.gz")
    other.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))
    return other


async def test_what_is_no_whole_backup_is_refused(
    store: Store, store_url: str, tmp_path: Path, done: Done
):
    """Cut off at any line, changed in one place, or something else: nothing is restored."""
    await fill(store, done)
    path, url = tmp_path / "backup.gz", f"sqlite:///{tmp_path / 'other.sqlite3'}"
    await asyncio.to_thread(write, store_url, path)
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    changes: list[Callable[[bytes], bytes]] = [
        *(lambda _, n=n: b"".join(lines[:n]) for n in range(len(lines))),
        lambda text: text.replace(b'"done"', b'"dome"', 1),
        lambda text: text.replace(b'"table":"journal"', b'"table":"journel"'),
        lambda text: text.replace(b'"event_id"', b'"1; DROP"', 1),
        lambda text: text.replace(b'"flea_fleet_backup"', b'"other"'),
        lambda _: b"[1]\n",
    ]
    for change in changes:
        with pytest.raises(StoreError, match="no backup"):
            await asyncio.to_thread(restore, url, copy_of(path, change))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match="no backup"):
        await asyncio.to_thread(restore, url, path)
    with pytest.raises(StoreError, match="No such file"):
        await asyncio.to_thread(restore, url, tmp_path / "none.gz")
    path.write_bytes(b"plain")
    with pytest.raises(StoreError, match="no backup"):
        await asyncio.to_thread(restore, url, path)


async def test_a_backup_of_a_newer_fleet(store: Store, store_url: str, tmp_path: Path):
    """An older fleet says that it must be upgraded."""
    assert store
    path = tmp_path / "backup.gz"
    await asyncio.to_thread(write, store_url, path)
    old, new = (f'"schema":{version}'.encode() for version in (schema.VERSION, schema.VERSION + 1))
    changed = gzip.decompress(path.read_bytes()).replace(old, new)
    body, _, _ = changed.rstrip(b"\n").rpartition(b"\n")
    end = b'{"rows":0,"sha256":"%s"}\n' % hashlib.sha256(body + b"\n").hexdigest().encode()
    path.write_bytes(gzip.compress(body + b"\n" + end))
    with pytest.raises(StoreError, match="upgrade the fleet"):
        await asyncio.to_thread(restore, store_url, path)


async def test_a_backup_before_an_upgrade(
    store_url: str, tmp_path: Path, done: Done, monkeypatch: pytest.MonkeyPatch
):
    """An older store is backed up as it is, stays as it is, and is restored as a newer one."""
    monkeypatch.setattr(schema, "VERSION", 4)
    store = open_store(store_url)
    await store.open()
    await store.commit([done("E1")])
    await store.close()
    monkeypatch.undo()
    path, other = tmp_path / "backup.gz", f"sqlite:///{tmp_path / 'other.sqlite3'}"
    for _ in range(2):
        counted = await asyncio.to_thread(write, store_url, path)
        assert set(counted) == set(backup.kept(4))
        assert backup.check(path).schema == 4
    await asyncio.to_thread(restore, other, path)
    assert (await asyncio.to_thread(write, other, path))["journal"] == 1
    assert backup.check(path).schema == schema.VERSION


async def test_two_backups_to_one_file(tmp_path: Path, done: Done):
    """Whichever ends last, the file is one whole backup."""
    urls = [f"sqlite:///{tmp_path / name}.sqlite3" for name in "ab"]
    for number, url in enumerate(urls):
        store = open_store(url)
        await store.open()
        await store.commit([done(f"{number}-{each}") for each in range(4000 * (number + 1))])
        await store.close()
    path = tmp_path / "backup.gz"
    for _ in range(3):
        await asyncio.gather(*(asyncio.to_thread(write, url, path) for url in urls))
        backup.check(path)
    assert not [name for name in left(tmp_path) if name.endswith(".part")]


async def test_nothing_is_restored_under_a_running_fleet(
    store: Store, store_url: str, tmp_path: Path
):
    """Where a replica has just said that it lives, it has to be stopped first."""
    path = tmp_path / "backup.gz"
    await asyncio.to_thread(write, store_url, path)
    me = Replica("worker", "w1", "i", "svc", "h", 1, "0", NOW, NOW, Pulse("running"))

    def beat(tx: Tx) -> bool:
        return replicas.beat(tx, me)

    await store.run(beat)
    with pytest.raises(StoreError, match="w1 is at work"):
        await asyncio.to_thread(restore, store_url, path, force=True)


def test_there_is_nothing_to_back_up(tmp_path: Path):
    """A store that is not there is not made by a backup."""
    with pytest.raises(StoreError, match="no store"):
        write(f"sqlite:///{tmp_path / 'none.sqlite3'}", tmp_path / "backup.gz")
    assert list(tmp_path.iterdir()) == []


async def test_opening_again_after_a_restore(store_url: str, tmp_path: Path, done: Done):
    """The restored store is an ordinary one."""
    source = f"sqlite:///{tmp_path / 'source.sqlite3'}"
    opened = open_store(source)
    await opened.open()
    await fill(opened, done)
    await opened.close()
    path = tmp_path / "backup.gz"
    await asyncio.to_thread(write, source, path)
    await asyncio.to_thread(restore, store_url, path)
    store = open_store(store_url, create=False)
    await store.open()
    assert (await store.admit([Candidate("svc", "E1")], 0))[0].seen == "done"
    assert await store.commit([done("E1"), done("E7")]) == ["twin", "written"]
    await store.close()
