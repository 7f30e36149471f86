"""What an audit reads in the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest

from fleet.audit.books import percentile, read_books, read_journal
from fleet.audit.ids import pack
from fleet.core.ulid import make_ulid
from fleet.store import Settled, Store, leases, open_store
from fleet.store.bridge import MissedRange, QuarantinedRow, ShedRow, settle_prefix
from fleet.store.positions import Position, opened, reserve

NOW = 1_735_689_600_000


def ulid(number: int) -> str:
    """The id of a number."""
    return make_ulid(NOW, number.to_bytes(10, "big"))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store."""
    opened_store = open_store(f"sqlite:///{tmp_path / 'fleet.sqlite3'}")
    await opened_store.open()
    yield opened_store
    await opened_store.close()


async def test_the_journal_is_read_whole(store: Store):
    """Outcomes by id; what each worker has done; the ages of ticks done at once and no others."""
    await store.commit(
        [
            Settled("a", ulid(1), "done", 1, "worker-1", NOW, age_ms=3),
            Settled("a", ulid(2), "done", 2, "worker-1", NOW, age_ms=900),
            Settled("a", ulid(3), "done", 1, "worker-2", NOW, age_ms=700),
            Settled("a", ulid(4), "failed", 1, "worker-2", NOW, age_ms=800),
            Settled("b", ulid(1), "skipped", 1, "worker-3", NOW),
        ]
    )
    ticks = {pack(ulid(1)), pack(ulid(2)), pack(ulid(4))}
    journal = await read_journal(store, "a", ticks.__contains__)
    assert [journal.outcomes[pack(ulid(n))] for n in range(1, 5)] == ["done"] * 3 + ["failed"]
    assert journal.done_by == {"worker-1": 2, "worker-2": 1}
    assert journal.ages_ms == {3: 1}


async def test_the_bridge_books_are_read_whole(store: Store):
    """Sheds by id, missed ranges by their ends, quarantined frames by number."""
    lease = await store.run(partial(leases.acquire, name="l", holder="h", now_ms=NOW, ttl_ms=9999))
    assert lease is not None
    await store.run(
        partial(
            settle_prefix,
            source="s",
            cursor=ulid(9),
            lease=lease,
            now_ms=NOW,
            shed=[ShedRow(ulid(1), "full", NOW)],
            missed=[MissedRange(ulid(2), ulid(5), NOW, 2)],
            quarantined=[QuarantinedRow(ulid(5), "no JSON", "0" * 64, NOW)],
        )
    )
    books = await read_books(store)
    assert books.shed == {pack(ulid(1))}
    assert books.missed == ((ulid(2), ulid(5), 2),)
    assert (books.quarantined, books.doubled) == (1, 0)


async def test_a_position_under_two_keys_is_doubled(store: Store):
    """The venue's id stands twice in the book: one position was taken for two."""
    for number, pair in enumerate(("BTC/USDT", "ETH/USDT")):
        place = Position(f"key{number}", "agent", pair, "long", Decimal(1), Decimal(1), NOW)
        await store.run(partial(reserve, position=place, max_open=3))
        await store.run(partial(opened, key=place.key, venue_id="p", entry_price=None, now_ms=NOW))
    books = await read_books(store)
    assert (books.positions, books.doubled) == ({"open": 2}, 1)


def test_percentiles_are_values_that_were_seen():
    """The smallest value that the share does not exceed; none of nothing."""
    ages = Counter({1: 98, 7: 1, 900: 1})
    assert [percentile(ages, share) for share in (0.5, 0.99, 1.0)] == [1, 7, 900]
    assert percentile(Counter(), 0.5) is None
