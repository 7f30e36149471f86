"""Alerts, decisions and case files: what is over and old goes, what is open or money stays."""

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
    effects,
    positions,
    prune_told,
)
from fleet.store import prune as pruning
from fleet.store.alerts import Alert, Wanted
from fleet.store.cases import Entry
from fleet.store.decisions import Decision
from fleet.store.positions import Position
from fleet.store.prune import Pruned

Done = Callable[..., Settled]
OLD, CUTOFF, YOUNG = 1_000_000, 2_000_000, 3_000_000
HIRED, DONE, DISPUTED = "job.hire_requested", "job.completed", "escrow.disputed"
KEYED = '{"key":"k1"}'


async def prune(store: Store) -> Pruned:
    """Prune, having counted first: both must say the same."""
    counted = await pruning.prune(store, CUTOFF, {}, dry_run=True)
    done = await pruning.prune(store, CUTOFF, {}, dry_run=False)
    assert counted == done
    return done


async def effect(store: Store, done: Done, key: str, state: str) -> None:
    """An effect in this state."""
    await store.admit([Candidate("svc", f"of {key}", 0, Claim(key, "x", "h", 9))], 1)
    if state != "reserved":
        result = EffectResult(key, state)  # type: ignore[arg-type]  # each caller names its own
        await store.commit([done(f"of {key}", outcome="", effect=result)])


async def test_alerts_that_were_resolved_go(store: Store) -> None:
    """However old, an open one stays; so does what was told lately."""
    for name, at_ms in (("open", OLD), ("over", OLD), ("young", YOUNG)):
        alert = Alert(name, "a", "low_balance", name, "warning", "t", "d", "r", at_ms)
        await store.run(lambda tx, one=alert: alerts.add(tx, one))
    word = {"operator": "ann", "note": "n", "now_ms": YOUNG}
    await store.run(lambda tx: alerts.resolve(tx, ["over", "young"], **word))
    assert await prune(store) == Pruned(alerts=1)
    found = await store.read(lambda tx: alerts.page(tx, Wanted(all=True)))
    assert [each.alert.event_id for each in found] == ["young", "open"]
    assert await store.read(alerts.open_counts) == {"warning": 1}


async def test_decisions_go_page_by_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a page of them."""
    monkeypatch.setattr(prune_told, "PAGE", 2)
    for number in range(5):
        one = Decision(
            f"E{number}", "a", "P", "long", "s", f"k{number}", "full", "", "", 1, OLD, ""
        )
        await store.run(lambda tx, one=one: decisions.add(tx, one))
    assert await prune(store) == Pruned(decisions=5)


@pytest.mark.parametrize(
    "why", ["over", "young", "reserved", "unknown", "open", "closed", "failed", "done", "refused"]
)
async def test_the_reason_for_what_is_open_stays(store: Store, done: Done, why: str) -> None:
    """A position, an order under way, unknown or failed: its decision is still to be asked for."""
    at_ms = YOUNG if why == "young" else OLD
    one = Decision("E1", "a", "P", "long", "s", "k1", "full", "ordered", "{}", 1, at_ms, "O1")
    await store.run(lambda tx: decisions.add(tx, one))
    await store.run(lambda tx: bindings.record(tx, "svc", ["order.*"], 0))
    states = {"refused": "failed", "open": "done", "closed": "done"}
    if why in ("reserved", "unknown", "done", "open", "closed", "refused"):
        await effect(store, done, "k1", states.get(why, why))
    if why in ("open", "closed"):
        place = Position("k1", "a", "P", "long", Decimal(50), Decimal(3), ts_ms=1)
        await store.run(lambda tx: positions.reserve(tx, place, 9))
        await store.run(lambda tx: positions.opened(tx, "k1", "pos_1", Decimal(1), 2))
    if why == "closed":
        await store.run(lambda tx: positions.closed(tx, "k1", Decimal(1), None, 3))
    if why == "failed":
        await store.commit([done("O1", outcome="failed")])
    goes = why in ("over", "closed", "done", "refused")
    assert await prune(store) == Pruned(decisions=int(goes))
    assert bool(await store.read(lambda tx: decisions.of_keys(tx, ["k1"]))) != goes


@pytest.mark.parametrize(
    ("name", "entries", "state", "goes"),
    [
        ("a stranger's job", [("job/1", DONE, "{}")], "", True),
        ("a job that is not done", [("job/1", HIRED, KEYED)], "done", False),
        ("paid", [("job/1", HIRED, "{}"), ("job/1", DONE, KEYED)], "done", True),
        ("being paid", [("job/1", DONE, KEYED)], "reserved", False),
        ("perhaps paid", [("job/1", DONE, KEYED)], "unknown", False),
        ("refused", [("job/1", DONE, KEYED)], "failed", False),
        ("in dispute", [("escrow/1", DISPUTED, "{}")], "", False),
        (
            "released",
            [("escrow/1", DISPUTED, "{}"), ("escrow/1", "escrow.released", "{}")],
            "",
            True,
        ),
    ],
)
async def test_a_case_goes_as_a_whole_or_not_at_all(
    store: Store,
    done: Done,
    *,
    name: str,
    entries: list[tuple[str, str, str]],
    state: str,
    goes: bool,
) -> None:
    """Only without a dispute, with an end of the job, and where every payment is done."""
    made = [
        Entry("a", subject, f"E{number}", kind, body, OLD)
        for number, (subject, kind, body) in enumerate(entries)
    ]
    await store.run(lambda tx: cases.add(tx, made))
    if state:
        await effect(store, done, "k1", state)
    assert await prune(store) == Pruned(cases=len(made) if goes else 0), name
    assert (await store.read(lambda tx: cases.about(tx, "a", made[0].subject)) == []) == goes
    if state:
        assert await store.read(lambda tx: effects.get(tx, "k1")) is not None


async def test_a_case_that_somebody_added_to_lately_stays(store: Store) -> None:
    """All of it: its old part is what the new one is about."""
    made = [Entry("a", "job/1", f"E{at}", DONE, "{}", at) for at in (OLD, YOUNG)]
    await store.run(lambda tx: cases.add(tx, made))
    assert await prune(store) == Pruned()
    assert await store.read(lambda tx: cases.about(tx, "a", "job/1")) == made
