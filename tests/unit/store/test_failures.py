"""What a store does where it cannot go on: one sentence at the start, StateError later."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from fleet.core.errors import StateError, StoreError
from fleet.store import Settled, Store, StoreSettings, audit, open_store, schema, sqlite_link

PROC = Path("/proc/self")
Done = Callable[..., Settled]


async def refusal(url: str) -> str:
    """What opening this store says; one line, a StoreError."""
    with pytest.raises(StoreError) as caught:
        await open_store(url).open()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "url",
    [
        "",
        "fleet.db",
        "mysql://u:secret@h/db",
        "sqlite://",
        "sqlite:///",
        "sqlite://h/x",
        "//[",
        "\0",
    ],
)
def test_a_url_that_names_no_store(url: str) -> None:
    """One sentence says how it should look, and repeats no password."""
    with pytest.raises(StoreError, match="sqlite:///relative/path") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


def test_where_the_store_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """STORE_URL says it, with a default under the working folder."""
    monkeypatch.delenv("STORE_URL", raising=False)
    assert StoreSettings().url == "sqlite:///.fleet/fleet.sqlite3"
    monkeypatch.setenv("STORE_URL", "sqlite:////data/x.db")
    assert StoreSettings().url == "sqlite:////data/x.db"


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """It is refused and left as it is."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"dear diary, " * 1_000)
    assert str(path) in await refusal(f"sqlite:///{path}")
    assert path.read_bytes() == b"dear diary, " * 1_000


async def test_a_database_of_something_else(tmp_path: Path) -> None:
    """It gets no tables of ours."""
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    assert "something else" in await refusal(f"sqlite:///{path}")


async def test_a_newer_schema(tmp_path: Path) -> None:
    """An older fleet does not touch it and says what to do."""
    path = tmp_path / "fleet.db"
    store = open_store(f"sqlite:///{path}")
    await store.open()
    newer = schema.VERSION + 1
    await store.run(lambda tx: tx.execute("UPDATE schema_version SET version = ?", (newer,)))
    await store.close()
    assert f"has schema {newer}" in await refusal(f"sqlite:///{path}")


@pytest.mark.skipif(not PROC.exists(), reason="needs a folder that not even root may write")
@pytest.mark.parametrize("place", ["/proc/fleet/x.db", "/proc/x.db"])
async def test_a_place_where_nothing_may_be_written(place: str) -> None:
    """The sentence names the file and the setting."""
    message = await refusal(f"sqlite:///{place}")
    assert place in message
    assert "STORE_URL" in message


async def test_a_folder_in_its_place(tmp_path: Path) -> None:
    """A folder is no store."""
    assert str(tmp_path) in await refusal(f"sqlite:///{tmp_path}")


async def test_locked_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who keeps the lock is to blame at the start; later it is StateError, then it recovers."""
    path = tmp_path / "fleet.db"
    store = open_store(f"sqlite:///{path}")
    await store.open()
    monkeypatch.setattr(sqlite_link, "PATIENCE_S", 0.05)
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    assert "locked" in await refusal(f"sqlite:///{path}")
    with pytest.raises(StateError):
        await store.run(lambda tx: tx.execute("DELETE FROM journal"))
    lock.execute("ROLLBACK")
    lock.close()
    await store.run(lambda tx: tx.execute("DELETE FROM journal"))
    await store.close()


@pytest.mark.parametrize("plain", [True, False])
async def test_a_full_disk(tmp_path: Path, done: Done, *, plain: bool) -> None:
    """A commit without room raises StateError and writes nothing; with room again it works."""
    store = open_store(f"sqlite:///{tmp_path / 'fleet.db'}")
    await store.open()
    limit = "PRAGMA max_page_count = "
    pages = (await store.read(lambda tx: tx.query("PRAGMA page_count")))[0][0]
    await store.run(lambda tx: tx.query(f"{limit}{pages + 2}"))
    more = {} if plain else {"started": True}
    big = [done(f"E{n:04}", reason="x" * 500, **more) for n in range(500)]
    with pytest.raises(StateError, match="full"):
        await store.commit(big)
    assert await store.read(lambda tx: audit.outcomes(tx, "svc")) == {}
    await store.run(lambda tx: tx.query(f"{limit}1000000"))
    assert set(await store.commit(big)) == {"written"}
    await store.close()


async def test_a_mistake_in_a_statement_is_the_callers(store: Store) -> None:
    """It is raised as it is, and the store goes on."""
    with pytest.raises((sqlite3.Error, psycopg.Error), match="nowhere"):
        await store.run(lambda tx: tx.execute("DELETE FROM nowhere"))
    assert await store.read(audit.effects) == {}


async def test_a_store_opens_again(store_url: str, done: Done) -> None:
    """What was committed is there after the next open; the schema is made only once."""
    for n in range(2):
        store = open_store(store_url)
        await store.open()
        await store.commit([done(f"E{n}")])
        await store.close()
    store = open_store(store_url)
    await store.open()
    assert await store.read(lambda tx: audit.outcomes(tx, "svc")) == {"done": 2}
    await store.close()
