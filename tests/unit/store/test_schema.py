"""An older store becomes a newer one, with what is in it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from fleet.store import effects, open_store, schema


async def test_a_store_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """Its effects are there; of what it did not write down nothing is claimed to be known."""
    path = tmp_path / "fleet.db"
    old = sqlite3.connect(path)
    for statement in schema.MIGRATIONS[0]:
        old.execute(
            statement.format(keyed=" WITHOUT ROWID", serial="INTEGER PRIMARY KEY AUTOINCREMENT")
        )
    old.execute("CREATE TABLE schema_version (version BIGINT NOT NULL)")
    old.execute("INSERT INTO schema_version (version) VALUES (1)")
    old.execute("INSERT INTO effects VALUES ('k', 'order', 'done', '', 0, 1, 0, '', '{}', '', 5)")
    old.commit()
    old.close()
    store = open_store(f"sqlite:///{path}")
    await store.open()
    found = await store.read(lambda tx: effects.get(tx, "k"))
    await store.close()
    assert found is not None
    assert (found.state, found.at_ms, found.first_ms) == ("done", 5, 0)
