"""The wallet, escrows, jobs: commands that reach the platform once, and disputes that halt them."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent import records
from agent.keys import escrow_key
from agent.world.settings import WorldSettings
from agent.world.template import Template
from fleet.core.decision import Ack, Fail, Postpone
from fleet.core.errors import SettingsError
from fleet.core.payloads import (
    BalanceChanged,
    EscrowDisputed,
    EscrowReleased,
    JobCompleted,
    JobFailed,
    LowBalance,
    PaymentRequested,
)
from fleet.settings import load
from fleet.store import effects, facts

AGENT, HIRED = "pf_agent_sandbox", "pf_agent_hired"
DAY_MS = 86_400_000


KEY = escrow_key(AGENT, HIRED, Decimal(1), "j1")


def owed() -> PaymentRequested:
    """The payment of one USDC for a job."""
    return PaymentRequested(KEY, AGENT, HIRED, Decimal(1), "j1")


def types(told: list[tuple[str, Any]]) -> list[str]:
    """The types of a chain of events."""
    return [kind for kind, _ in told]


async def test_low_balance_rests_trading_and_claims_the_faucet_once_a_day(world: Any) -> None:
    """Two breaches on a day are one claim; nothing is opened until the balance is back."""
    place = await world(faucet=True)
    low = LowBalance(Decimal(3), Decimal(10))
    midnight = place.now // DAY_MS * DAY_MS
    for at in (midnight + 1, midnight + 2):
        told = await place.runner.chain(place.event(low, "wallet.low_balance", at))
    assert types(told) == ["wallet.low_balance", "alert.raised", "faucet.claim_requested"]
    assert place.done() == {"claim": 1}
    paused = lambda tx: records.is_paused(tx, AGENT)  # noqa: E731
    assert await place.desk.store.read(paused)
    back = place.event(BalanceChanged(Decimal(11)), "wallet.balance_changed", midnight + 3)
    await place.run(back)
    assert not await place.desk.store.read(paused)


async def test_a_late_breach_claims_nothing(world: Any) -> None:
    """A breach older than the balance that is known neither pauses nor claims."""
    place = await world(faucet=True)
    await place.run(place.event(BalanceChanged(Decimal(90)), "wallet.balance_changed", place.now))
    low = place.event(LowBalance(Decimal(3), Decimal(10)), "wallet.low_balance", place.now - 5)
    assert types(await place.runner.chain(low)) == ["wallet.low_balance"]
    assert not await place.desk.store.read(lambda tx: records.is_paused(tx, AGENT))


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (BalanceChanged(Decimal(900)), "wallet.balance_changed"),
        (LowBalance(Decimal(1), Decimal(10)), "wallet.low_balance"),
        (EscrowReleased("esc_9", Decimal(500)), "escrow.released"),
    ],
)
async def test_the_money_of_another_agent_is_not_ours(world: Any, told: Any, kind: str) -> None:
    """Told of another agent: nothing is paused, claimed, counted or spent here."""
    place = await world(faucet=True, income_policy="reinvest")
    event = msgspec.structs.replace(place.event(told, kind), agent_id=HIRED)
    (_, end), *more = await place.runner.chain(event)
    assert end.skipped == f"it is about {HIRED}"
    assert (more, place.done()) == ([], {})
    assert await place.desk.store.read(lambda tx: records.balance(tx, AGENT)) is None
    assert await place.desk.store.read(lambda tx: records.income(tx, AGENT)) == 0


@pytest.mark.parametrize(
    ("policy", "done"),
    [("hold", {}), ("hire", {"job": 1}), ("reinvest", {"deposit": 1})],
)
async def test_income_goes_where_the_policy_says(world: Any, policy: str, done: Any) -> None:
    """Booked once, trading goes on, and it is held, hires the next agent or is reinvested."""
    place = await world(income_policy=policy, hire_agent=HIRED)
    low = place.event(LowBalance(Decimal(3), Decimal(10)), "wallet.low_balance", place.now - 9)
    await place.run(low)
    event = place.event(EscrowReleased("e1", Decimal("25.10")), "escrow.released", place.now)
    await place.runner.chain(event)
    await place.runner.chain(event)
    assert dict(place.done()) == done
    store = place.desk.store
    assert await store.read(lambda tx: records.income(tx, AGENT)) == Decimal("25.10")
    assert not await store.read(lambda tx: records.is_paused(tx, AGENT))


async def test_a_job_that_is_done_is_paid_once(world: Any) -> None:
    """Told twice, with every second answer lost: one payment, under the escrow key, in cents."""
    place = await world(faults="lost_answers=0.5")
    await place.hired("j1")
    done = JobCompleted("j1", "sha256:0", "https://x.example")
    for _ in range(6):
        told = await place.runner.chain(place.event(done, "job.completed"))
        assert types(told) == ["job.completed", "payment.release_requested"]
    key = escrow_key(AGENT, HIRED, Decimal("12.34"), "j1")
    assert key == f"escrow:{AGENT}:{HIRED}:1234:j1"
    assert [(one.kind, one.key) for one in place.sandbox.ledger._effects] == [("release", key)]
    effect = await place.desk.store.read(lambda tx: effects.get(tx, key))
    assert effect.state == "done"


async def test_a_job_without_terms_is_told_of_and_not_paid(world: Any) -> None:
    """Nobody here hired for it: an alert, no money."""
    place = await world()
    told = await place.runner.chain(place.event(JobCompleted("j9"), "job.completed"))
    assert types(told) == ["job.completed", "alert.raised"]
    assert not place.done()


async def test_what_was_hired_is_paid_when_it_is_done(world: Any) -> None:
    """The job's id comes from the platform's answer; what was agreed is paid under it."""
    place = await world(fallback_agent="pf_agent_second", faults="lost_answers=0.5")
    await place.hired("j1", "5.00")
    failed = place.event(JobFailed("j1", "gave up"), "job.failed")
    assert types(await place.runner.chain(failed)) == ["job.failed", "job.hire_requested"]
    again = place.event(JobFailed("j1", "gave up"), "job.failed")
    await place.runner.chain(again)
    assert place.done() == {"job": 1}
    known = await place.desk.store.read(lambda tx: facts.under(tx, f"hired/{AGENT}/job_"))
    (job,) = [fact.name.rpartition("/")[2] for fact in known]
    await place.runner.chain(place.event(JobCompleted(job), "job.completed"))
    assert place.done() == {"job": 1, "release": 1}
    assert place.sandbox.ledger._effects[-1].key.endswith(f":pf_agent_second:500:{job}")


async def test_a_job_that_fails_the_fallback_too_is_escalated(world: Any) -> None:
    """No circle of hirings: what the fallback agent fails is for a person."""
    place = await world(fallback_agent="pf_agent_second")
    await place.hired("j1", agent="pf_agent_second")
    told = await place.runner.chain(place.event(JobFailed("j1"), "job.failed"))
    assert types(told) == ["job.failed", "alert.raised"]
    assert not place.done()


async def test_a_dispute_halts_the_payment_until_it_is_over(world: Any) -> None:
    """While the job's money is in dispute its payment waits; released, it goes out once."""
    place = await world()
    await place.hired("j1")
    await place.run(place.event(JobCompleted("j1"), "job.completed", place.now))
    (payment,) = place.runner.emitted
    disputed = EscrowDisputed("e1", Decimal("12.34"), "j1", "result_rejected")
    await place.run(place.event(disputed, "escrow.disputed", place.now + 1))
    assert isinstance(await place.run(payment), Postpone)
    assert not place.done()
    released = EscrowReleased("e1", Decimal("12.34"), "j1")
    await place.run(place.event(released, "escrow.released", place.now + 2))
    late = EscrowDisputed("e1", Decimal("12.34"), "j1")
    await place.run(place.event(late, "escrow.disputed", place.now - 50))
    assert await place.run(payment) == Ack()
    assert place.done() == {"release": 1}


async def test_the_evidence_of_a_dispute_is_one_file(world: Any, tmp_path: Path) -> None:
    """Events, decisions, the payment and its key; its path stands in the alert."""
    place = await world()
    await place.hired("j1")
    await place.runner.chain(place.event(JobCompleted("j1"), "job.completed", place.now))
    disputed = EscrowDisputed("e1", Decimal("12.34"), "j1", "result_rejected")
    await place.desk.store.run(
        lambda tx: tx.execute("INSERT INTO bindings VALUES ('trading.agent', 'job.completed', 0)")
    )
    event = place.event(disputed, "escrow.disputed", place.now + 1)
    told = await place.runner.chain(event)
    assert types(told) == ["escrow.disputed", "evidence.requested", "alert.raised"]
    (path,) = (tmp_path / "evidence").iterdir()
    assert str(path) in place.runner.emitted[-1].payload["detail"]
    found = json.loads(path.read_text())
    assert [one["type"] for one in found["events"]] == [
        "job.completed",
        "payment.release_requested",
        "escrow.disputed",
    ]
    assert found["events"][0]["journal"][0]["outcome"] == "done"
    assert found["terms"]["amount_usdc"] == "12.34"
    assert [(one["key"], one["state"]) for one in found["effects"]] == [
        (f"escrow:{AGENT}:{HIRED}:1234:j1", "done")
    ]


async def test_evidence_that_cannot_be_written_is_told_all_the_same(
    world: Any, tmp_path: Path
) -> None:
    """The folder is a file: tried again, and at last the alert goes out without a path."""
    (tmp_path / "taken").write_text("")
    place = await world(evidence_dir=tmp_path / "taken")
    event = place.event(EscrowDisputed("e1", Decimal(1)), "escrow.disputed")
    told = await place.runner.chain(event)
    assert types(told)[-1] == "alert.raised"
    assert "could not be written" in place.runner.emitted[-1].payload["detail"]


async def test_paper_spends_no_key_of_a_payment(office: Any) -> None:
    """No money moves on paper, and what is owed can still be paid, under the same key."""
    place = await office(agent={"paper": True})
    wish = owed()
    decision = await place.run(place.event(wish, "payment.release_requested"))
    assert decision.skipped == "on paper"
    assert place.done() == {}
    assert await place.desk.store.read(lambda tx: effects.get(tx, KEY)) is None


async def test_the_mode_stands_in_the_effect_of_a_payment(world: Any) -> None:
    """As in an order's: under which mode money moved."""
    place = await world()
    await place.hired("j1", "1")
    wish = owed()
    await place.run(place.event(wish, "payment.release_requested"))
    assert (await place.desk.store.read(lambda tx: effects.get(tx, KEY))).mode == "full"


@pytest.mark.parametrize(("resend", "later_ms"), [(False, 60_000), (True, DAY_MS)])
async def test_a_payment_that_cannot_be_asked_about_is_never_sent_again(
    world: Any, resend: bool, later_ms: int
) -> None:
    """A platform that knows no keys, and one whose day is over: unknown, for a person."""
    place = await world(faults="lost_answers=1", resend=resend)
    await place.hired("j1", "1")
    wish = owed()
    event = place.event(wish, "payment.release_requested")
    await place.run(event)
    decision = await place.run(event, attempt=2, at=place.now + later_ms)
    assert isinstance(decision, Fail)
    assert decision.failure.error_type == "UnknownOutcome"
    assert place.sandbox.summary()["faults"]["calls"] == 1
    assert (await place.desk.store.read(lambda tx: effects.get(tx, KEY))).state == "unknown"


def test_a_template_is_filled_after_it_was_parsed() -> None:
    """A value with quotes and braces is a value; money is a number, digit for digit."""
    template = Template('{"to": "{recipient}", "deep": [{"n": "{amount}"}], "plain": "{"}')
    filled = template.fill({"recipient": '"}{job}', "amount": Decimal("0.10")})
    assert filled == {"to": '"}{job}', "deep": [{"n": Decimal("0.10")}], "plain": "{"}


@pytest.mark.parametrize("text", ["", "[]", '{"a": "{nobody}"}', '{"a": '])
def test_a_wrong_template_is_refused_at_the_start(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence that names the setting."""
    monkeypatch.setenv("RELEASE_BODY", text)
    with pytest.raises(SettingsError, match=r"RELEASE_BODY is wrong"):
        load(WorldSettings)


def test_hiring_needs_somebody_to_hire(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that could only fail is refused before anything is earned."""
    monkeypatch.setenv("INCOME_POLICY", "hire")
    with pytest.raises(SettingsError, match=r"HIRE_AGENT is wrong: .*name the agent"):
        load(WorldSettings)
    monkeypatch.setenv("HIRE_AGENT", HIRED)
    assert load(WorldSettings).hire_agent == HIRED
