"""Case files, alerts, firings, decisions: each written once, found by what they are about."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from fleet.store import (
    Candidate,
    Claim,
    EffectResult,
    Settled,
    Store,
    alerts,
    bindings,
    cases,
    decisions,
    firings,
    journal,
    positions,
    story,
)
from fleet.store.alerts import Alert
from fleet.store.cases import Entry
from fleet.store.decisions import Decision
from fleet.store.positions import Position


async def test_a_case_has_each_event_once_in_the_order_of_handling(store: Store):
    """Noted twice, late or of another agent: once, where it was handled, not at all."""
    entries = [
        Entry("a", "job/1", "E2", "job.failed", "{}", 10),
        Entry("a", "job/1", "E1", "job.completed", "{}", 20),
        Entry("a", "job/2", "E3", "job.failed", "{}", 5),
        Entry("b", "job/1", "E4", "job.failed", "{}", 5),
    ]
    for _ in range(2):
        await store.run(lambda tx: cases.add(tx, entries))
    found = await store.read(lambda tx: cases.about(tx, "a", "job/1"))
    assert found == entries[:2]


async def test_an_alert_is_kept_by_its_first_writer(store: Store):
    """The second is told that it was not the first; the newest come first."""
    one = Alert("E1", "a", "low_balance", "", "warning", "Low", "3 left", "docs", 10)
    two = Alert("E2", "a", "job_failed", "j", "warning", "Failed", "", "docs", 20)
    assert await store.run(lambda tx: alerts.add(tx, one))
    assert not await store.run(lambda tx: alerts.add(tx, one))
    assert await store.run(lambda tx: alerts.add(tx, two))
    assert await store.read(lambda tx: alerts.newest(tx, "a")) == [two, one]
    assert await store.read(lambda tx: alerts.newest(tx, "b")) == []
    assert await store.read(lambda tx: alerts.get(tx, "E1")) == one
    assert await store.read(lambda tx: alerts.get(tx, "E9")) is None


async def test_a_firing_never_goes_back(store: Store):
    """A bridge that lost its lease and is late changes nothing."""
    for at_ms in (10, 30, 20):
        await store.run(lambda tx, at_ms=at_ms: firings.note(tx, "a", "daily", at_ms))
    await store.run(lambda tx: firings.note(tx, "b", "daily", 5))
    assert await store.read(lambda tx: firings.last(tx, "a")) == {"daily": 30}


async def test_decisions_are_found_by_the_keys_of_their_orders(store: Store):
    """The same record again changes nothing."""
    one = Decision("E1", "a", "P", "long", "s", "k1", "full", "ordered", "{}", 1, 2, "O1")
    two = Decision("E2", "a", "P", "short", "s", "k2", "full", "ordered", "{}", 3, 4, "O2")
    for decision in (two, one, one):
        await store.run(lambda tx, decision=decision: decisions.add(tx, decision))
    found = await store.read(lambda tx: decisions.of_keys(tx, ["k2", "k1", "k2"]))
    assert [each.event_id for each in found] == ["E1", "E2"]
    assert await store.read(lambda tx: decisions.of_keys(tx, [])) == []
    (newest,) = await store.read(lambda tx: decisions.newest(tx, "a", 1))
    assert newest.event_id == "E2"


async def test_a_story_has_the_rows_of_every_service(store: Store, done: Callable[..., Settled]):
    """Those that were ever laid out, and the bridge's; earliest first."""
    for name in ("one", "two"):
        await store.run(lambda tx, name=name: bindings.record(tx, name, ["a.*"], 0))
    rows = [
        done("E1", service="two", at_ms=30),
        done("E1", service="one", at_ms=20, outcome="failed", reason="no"),
        done("E1", service="bridge", at_ms=10, outcome="shed"),
        done("E2", service="one", at_ms=10),
    ]
    await store.run(lambda tx: journal.insert(tx, rows))
    found = await store.read(lambda tx: story.journal(tx, "E1"))
    assert [(row.service, row.outcome) for row in found] == [
        ("bridge", "shed"),
        ("one", "failed"),
        ("two", "done"),
    ]


async def test_what_services_want(store: Store):
    """By its type, its domain, or as everything; what was applied without a binding wants none."""
    wanted = {"job.done": ["one"], "job.*": ["two"], "job.#": ["three"], "#": ["four"]}
    for pattern, (name,) in wanted.items():
        await store.run(lambda tx: tx.execute("DELETE FROM bindings"))
        await store.run(
            lambda tx, name=name, pattern=pattern: bindings.record(tx, name, [pattern], 0)
        )
        assert await store.read(lambda tx: bindings.wants(tx, "job.done"))
        is_all = pattern == "#"
        assert await store.read(lambda tx: bindings.wants(tx, "tick.done")) == is_all
    await store.run(lambda tx: tx.execute("DELETE FROM bindings"))
    await store.run(lambda tx: bindings.record(tx, "five", [], 0, partitions=4))
    assert not await store.read(lambda tx: bindings.wants(tx, "job.done"))


ENDS = {
    "nothing yet": ({}, "", "waiting"),
    "in hand": ({"state": "reserved"}, "", "under way"),
    "opened": ({"state": "done"}, "done", "opened as pos_1, closed with 1.5 USDC"),
    "refused": ({"state": "failed"}, "failed RefusedError: no market", "refused: no market"),
    "failed": ({"state": "failed"}, "failed DataError: too big", "failed: DataError: too big"),
    "unknown": ({"state": "unknown", "error": "no answer"}, "failed X: y", "unknown: no answer"),
    "resolved": ({"state": "done"}, "failed UnknownOutcome: x", "opened as pos_1, closed with"),
    "skipped": ({}, "skipped mode observation", "skipped: mode observation"),
    "expired": ({"state": "failed"}, "expired 130 s old", "expired: 130 s old"),
    "its row is gone": ({"state": "failed", "error": "why"}, "", "failed: why"),
}


@pytest.mark.parametrize("name", ENDS)
async def test_a_decision_says_what_became_of_its_order(
    store: Store, done: Callable[..., Settled], name: str
) -> None:
    """By journal, effect and book as they are when it is read; another service says nothing."""
    effect, row, told = ENDS[name]
    one = Decision("E1", "a", "P", "long", "s", "k1", "full", "ordered", "{}", 1, 2, "O1")
    await store.run(lambda tx: decisions.add(tx, one))
    for service in ("agent", "hears too"):
        await store.run(lambda tx, name=service: bindings.record(tx, name, ["order.*"], 0))
    rows = [
        done("E1", service="agent"),
        done("O1", service="hears too", outcome="skipped", reason="not mine"),
    ]
    if row:
        outcome, _, reason = row.partition(" ")
        rows.append(done("O1", service="agent", outcome=outcome, reason=reason))
    await store.run(lambda tx: journal.insert(tx, rows))
    if effect:
        await store.admit([Candidate("agent", "O1x", 0, Claim("k1", "order.requested", "h", 9))], 1)
        await store.commit([done("O1x", outcome="", effect=EffectResult("k1", **effect))])
    if effect.get("state") == "done":
        place = Position("k1", "a", "P", "long", Decimal(50), Decimal(3), ts_ms=1)
        await store.run(lambda tx: positions.reserve(tx, place, 9))
        await store.run(lambda tx: positions.opened(tx, "k1", "pos_1", Decimal(1), 2))
        await store.run(lambda tx: positions.closed(tx, "k1", Decimal("1.5"), None, 3))
    (found,) = await store.read(lambda tx: decisions.of_keys(tx, ["k1"]))
    assert found.outcome.startswith(told)
