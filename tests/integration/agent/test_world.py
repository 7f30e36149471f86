"""Wallet, escrows, jobs and the clock over three workers on a real broker."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agent import records
from agent.records import Terms
from agent.venue import Venue
from agent.world import register
from agent.world.settings import WorldSettings
from fleet.core.retry import RetryPolicy
from fleet.core.ulid import make_ulid
from fleet.store import alerts, facts

AGENT, HIRED = "pf_agent_sandbox", "pf_agent_second"


def done(agents: Any) -> Counter[str]:
    """How often the platform did what."""
    return Counter(effect.kind for effect in agents.sandbox.ledger._effects)


async def until_done(agents: Any, **kinds: int) -> None:
    """Wait until the platform did so much, and every effect's row says so."""

    async def all_there() -> bool:
        rows = await agents.store.read(lambda tx: tx.query("SELECT state FROM effects"))
        return done(agents) == kinds and {state for (state,) in rows} == {"done"}

    await agents.until(all_there)


async def until_alerted(agents: Any, name: str) -> Any:
    """Wait until an alert is written down; its row."""
    found: list[Any] = []

    async def there() -> bool:
        rows = await agents.store.read(lambda tx: alerts.newest(tx, AGENT))
        found[:] = [row for row in rows if row.name == name]
        return bool(found)

    await agents.until(there)
    return found[0]


@pytest.mark.parametrize("faults", ["", "errors=0.2,lost_answers=0.3"])
async def test_a_job_that_fails_is_taken_over_paid_and_disputed(
    agents: Any, tmp_path: Path, faults: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event told three times, answers lost: one hiring, one payment, one claim, one file."""
    # The delays of the real policy are drawn, and may come to more than a minute.
    monkeypatch.setattr(register, "PATIENT", RetryPolicy(attempts=30, base=0.1, cap=0.5))
    folder = tmp_path / "evidence"
    world = WorldSettings(fallback_agent=HIRED, faucet=True, evidence_dir=folder)
    await agents.start(world=world, faults=faults)
    agreed = Terms("pf_agent_first", Decimal("12.34"))
    await agents.store.run(
        lambda tx: records.agree(tx, AGENT, "j1", agreed, make_ulid(1, bytes(10)))
    )
    for _ in range(3):
        await agents.tell("wallet.low_balance", {"balance_usdc": 3, "threshold_usdc": 10})
        await agents.tell("job.failed", {"job_id": "j1", "error": "gave up"})
    await until_done(agents, claim=1, job=1)
    (fact,) = await agents.store.read(lambda tx: facts.under(tx, f"hired/{AGENT}/job_"))
    job = fact.name.rpartition("/")[2]
    for _ in range(3):
        await agents.tell("job.completed", {"job_id": job})
    await until_done(agents, claim=1, job=1, release=1)
    dispute = {"escrow_id": "e1", "amount_usdc": 10, "job_id": job, "reason": "rejected"}
    await agents.tell("escrow.disputed", dispute)
    alert = await until_alerted(agents, "escrow_disputed")
    (path,) = folder.iterdir()
    assert str(path) in alert.detail
    told = {one["type"] for one in json.loads(path.read_text())["events"]}
    assert told == {
        "job.hire_requested",
        "job.completed",
        "payment.release_requested",
        "escrow.disputed",
    }


async def test_a_firing_that_two_bridges_made_is_one_reconciliation(agents: Any) -> None:
    """The same event twice: the book is compared once, and differs by what the venue has not."""
    await agents.start()
    event = await agents.tell("clock.reconcile", {"schedule": "clock.reconcile"})
    await agents.tell("clock.health", {"schedule": "clock.health"})

    async def handled() -> bool:
        handlers = {handler for _, handler, _ in await agents.journal()}
        return {"on_reconcile", "on_health"} <= handlers

    await agents.until(handled)
    rows = {event_id: outcome for event_id, _, outcome in await agents.journal()}
    assert rows[event.event_id] == "skipped"  # they agree
    report = await agents.store.read(lambda tx: facts.get(tx, f"health/{AGENT}"))
    assert json.loads(report.value)["venue_s"] >= 0


async def test_a_hire_answer_that_lies_leaves_what_was_agreed(
    agents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job id of another hiring: done it is, for a person to see; the older terms stand."""

    async def same(*_: Any) -> bytes:
        return b'{"job_id": "j1"}'

    monkeypatch.setattr(Venue, "act", same)
    await agents.start(world=WorldSettings(fallback_agent=HIRED), workers=2)
    agreed = {name: Terms("pf_agent_first", Decimal(usdc)) for name, usdc in (("j1", 5), ("j2", 7))}
    for name, one in agreed.items():
        await agents.store.run(
            lambda tx, n=name, o=one: records.agree(tx, AGENT, n, o, make_ulid(1, bytes(10)))
        )
    await agents.tell("job.failed", {"job_id": "j2"})

    async def parked() -> bool:
        return ("on_hire", "failed") in {row[1:] for row in await agents.journal()}

    await agents.until(parked)
    (row,) = await agents.store.read(lambda tx: tx.query("SELECT state, error FROM effects"))
    assert row == ("done", "")
    assert await agents.store.read(lambda tx: records.terms(tx, AGENT, "j1")) == agreed["j1"]
