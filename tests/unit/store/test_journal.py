"""The journal: one end for each event and service."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fleet.store import Candidate, Settled, Store, Tx, audit, journal
from fleet.store.api import Write

Done = Callable[..., Settled]


async def rows(store: Store) -> list[audit.Entry]:
    """The journal of the service."""
    return await store.read(lambda tx: audit.page(tx, "svc"))


def note(name: str) -> Write:
    """Write a row that a test can look for."""
    return lambda tx: tx.execute("INSERT INTO bindings VALUES ('notes', ?, 0)", (name,))


async def notes(store: Store) -> set[str]:
    """The rows that `note` wrote."""
    found = await store.read(lambda tx: tx.query("SELECT pattern FROM bindings"))
    return {name for (name,) in found}


async def test_a_second_delivery_of_a_done_event_is_a_twin(store: Store, done: Done) -> None:
    """Whatever is committed again, alone or among new ones, changes nothing."""
    assert await store.commit([done("E1"), done("E2")]) == ["written", "written"]
    again = await store.commit([done("E1", worker="worker-2"), done("E3")])
    assert again == ["twin", "written"]
    assert [(row.event_id, row.worker) for row in await rows(store)] == [
        ("E1", "worker-1"),
        ("E2", "worker-1"),
        ("E3", "worker-1"),
    ]


async def test_twins_in_one_batch_are_told_apart(store: Store, done: Done) -> None:
    """Of two deliveries of one event in a batch the first is written."""
    assert await store.commit([done("E1"), done("E1", worker="w2")]) == ["written", "twin"]


async def test_services_do_not_share_a_journal(store: Store, done: Done) -> None:
    """The same event is handled once by each service."""
    assert await store.commit([done("E1"), done("E1", service="other")]) == ["written"] * 2


@pytest.mark.parametrize(
    ("outcome", "journalled", "delivered", "seen"),
    [
        ("done", 0, 1, True),
        ("skipped", 0, 1, True),
        ("failed", 0, 0, True),
        ("failed", 0, 1, False),
        ("expired", 1, 1, True),
        ("expired", 1, 2, False),
        ("shed", 0, 0, False),
    ],
)
async def test_a_replay_runs_what_failed_and_never_what_was_done(
    store: Store, done: Done, outcome: str, journalled: int, delivered: int, *, seen: bool
) -> None:
    """Done counts for ever, failed and expired until a replay, shed never."""
    await store.commit([done("E1", outcome=outcome, replay_count=journalled)])
    standing = (await store.admit([Candidate("svc", "E1", delivered)], 0))[0]
    assert standing.seen == (outcome if seen else None)
    verdicts = await store.commit([done("E1", replay_count=delivered, worker="w2")])
    assert verdicts == ["twin" if seen else "written"]
    assert (await rows(store))[0].outcome == (outcome if seen else "done")


async def test_shed_never_hides_what_a_lane_did(store: Store, done: Done) -> None:
    """Done beats shed, in whichever order they come."""
    await store.commit([done("E1")])
    assert await store.commit([done("E1", outcome="shed")]) == ["twin"]
    assert [row.outcome for row in await rows(store)] == ["done"]


async def test_writes_are_committed_with_their_row_only(store: Store, done: Done) -> None:
    """A twin's writes and a failing handler's writes leave nothing; the rest goes on."""
    await store.commit([done("E1")])
    verdicts = await store.commit(
        [
            done("E3", writes=(note("three"), lambda _: 1 / 0)),
            done("E1", writes=(note("twin"),)),
            done("E2", writes=(note("two"),)),
            done("E4"),
        ]
    )
    assert isinstance(verdicts[0], ZeroDivisionError)
    assert verdicts[1:] == ["twin", "written", "written"]
    assert await notes(store) == {"two"}
    assert [row.event_id for row in await rows(store)] == ["E1", "E2", "E4"]


async def test_writes_run_in_event_id_order(store: Store, done: Done) -> None:
    """However a batch is arranged, its writes see those of earlier events."""
    order: list[str] = []
    entries = [
        done(event_id, writes=(lambda _, event_id=event_id: order.append(event_id),))
        for event_id in ("E3", "E1", "E2")
    ]
    await store.commit(entries)
    assert order == ["E1", "E2", "E3"]


async def test_a_retry_leaves_no_journal_row(store: Store, done: Done) -> None:
    """An outcome that is not final is not journalled, so that the next attempt is handled."""
    assert await store.commit([done("E1", outcome="", writes=(note("kept"),))]) == ["written"]
    assert await rows(store) == []
    assert await notes(store) == {"kept"}


async def test_starts_are_counted_until_the_end(store: Store, done: Done) -> None:
    """A start is counted whoever makes it; whatever its worker lived to settle forgets it."""

    def start(worker: str) -> Callable[[Tx], int]:
        return lambda tx: journal.started(tx, "svc", "E1", worker, 0)

    assert [await store.run(start("w1")), await store.run(start("w2"))] == [1, 2]
    assert await store.read(lambda tx: journal.starts(tx, "svc", ["E1", "E2"])) == {"E1": 2}
    await store.commit([done("E1", outcome="", started=True)])
    assert await store.read(lambda tx: journal.starts(tx, "svc", ["E1"])) == {}


async def test_text_that_no_database_stores_blocks_nobody(store: Store, done: Done) -> None:
    """NUL and lone surrogates in a reason become U+FFFD; the batch is written."""
    bad = ["\ud800", "a\0b", "fine é", "'; DROP TABLE journal; --"]
    entries = [done(f"E{n}", outcome="failed", reason=text) for n, text in enumerate(bad)]
    assert await store.commit(entries) == ["written"] * 4
    sql = "SELECT reason FROM journal ORDER BY event_id"
    kept = [reason for (reason,) in await store.read(lambda tx: tx.query(sql))]
    assert kept == ["\N{REPLACEMENT CHARACTER}", "a\N{REPLACEMENT CHARACTER}b", *bad[2:]]


async def test_the_audit_reads_pages_in_order(store: Store, done: Done) -> None:
    """Every row comes once, by event id, however small the pages; counts agree."""
    ids = [f"E{n:03}" for n in range(25)]
    await store.commit([done(event_id) for event_id in reversed(ids)])
    await store.commit([done("E900", outcome="failed", worker="w2")])
    pages = [page async for page in audit.entries(store, "svc", limit=4)]
    assert [row.event_id for page in pages for row in page] == [*ids, "E900"]
    assert await store.read(lambda tx: audit.outcomes(tx, "svc")) == {"done": 25, "failed": 1}
