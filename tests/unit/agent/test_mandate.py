"""No event, from whomever it comes, makes the agent pay other than what it agreed to."""

from __future__ import annotations

import asyncio
import itertools
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from agent import records
from agent.handlers import service
from agent.keys import escrow_key, faucet_key, hire_key, reinvest_key
from agent.records import Terms
from agent.settings import AgentSettings
from agent.world.settings import WorldSettings
from fleet.core.canary import TYPE as CANARY
from fleet.core.decision import Ack, Fail, Postpone
from fleet.core.errors import DataError, SettingsError
from fleet.core.payloads import (
    OWN,
    ClaimRequested,
    EscrowDisputed,
    EscrowReleased,
    HireRequested,
    JobCompleted,
    JobFailed,
    PaymentRequested,
    ReinvestRequested,
)
from fleet.settings import load
from fleet.store import effects
from workers.registry import Service

AGENT, HIRED, SECOND = "pf_agent_sandbox", "pf_agent_hired", "pf_agent_second"
PLATFORM = {
    "market.tick",
    "market.candle",
    "wallet.balance_changed",
    "wallet.low_balance",
    "escrow.released",
    "escrow.disputed",
    "job.completed",
    "job.failed",
}
"""What the platform documents that its stream brings."""


def payment(recipient: str = HIRED, amount: str = "12.34", job: str = "j1", **more: Any) -> Any:
    """A payment under the key of its own fields."""
    usdc = Decimal(amount)
    key = escrow_key(more.get("sender", AGENT), recipient, usdc, job)
    fields = {"key": key, "sender": AGENT, "recipient": recipient, "amount_usdc": usdc} | more
    return PaymentRequested(job_id=job, **fields)


def refusal(decision: Any) -> str:
    """Why it was parked for a person."""
    assert isinstance(decision, Fail), decision
    assert decision.failure.error_class == "data"
    return decision.failure.message


def test_no_source_may_bring_what_the_fleet_alone_says() -> None:
    """Each type that the agent handles is the platform's, or one that no bridge lets in."""
    handled = set(service(AgentSettings(), WorldSettings()).handlers)
    assert handled - PLATFORM == OWN - {CANARY}
    assert not OWN & PLATFORM


@pytest.mark.parametrize(
    "forged",
    [
        payment(amount="50"),
        payment(recipient="pf_agent_thief"),
        payment(sender="pf_agent_other"),
        payment(job="j2"),
        payment(escrow_id="e9"),
    ],
    ids=["another amount", "another recipient", "another sender", "a stranger's job", "an escrow"],
)
async def test_a_payment_that_was_not_agreed_is_refused(world: Any, forged: Any) -> None:
    """Nothing is sent, a person sees it, and what was agreed can still be paid."""
    place = await world()
    await place.hired("j1")
    decision = await place.run(place.event(forged, "payment.release_requested"))
    assert refusal(decision)
    assert not place.done()
    if forged.key != payment().key:
        assert await place.run(place.event(payment(), "payment.release_requested")) == Ack()
        assert place.done() == {"release": 1}


async def test_a_wrong_payment_does_not_spend_a_right_key(world: Any) -> None:
    """A payment under another one's key is refused before the key is looked at."""
    place = await world()
    await place.hired("j1")
    forged = msgspec.structs.replace(payment(amount="50"), key=payment().key)
    with pytest.raises(DataError, match="the key of a payment is made of"):
        await place.run(place.event(forged, "payment.release_requested"))
    assert await place.desk.store.read(lambda tx: effects.get(tx, payment().key)) is None


async def test_a_job_that_failed_after_all_is_not_paid(world: Any) -> None:
    """Done, then failed: the payment that waits is for a person now, and nobody is hired twice."""
    place = await world(fallback_agent=SECOND)
    await place.hired("j1")
    await place.run(place.event(JobCompleted("j1"), "job.completed", place.now))
    (owed,) = place.runner.emitted
    await place.run(place.event(JobFailed("j1"), "job.failed", place.now + 1))
    assert "failed after" in refusal(await place.run(owed))
    assert not place.done()


async def test_a_job_that_was_paid_is_not_given_to_another(world: Any) -> None:
    """The platform takes its word back after the payment: a person hears, no second agent."""
    place = await world(fallback_agent=SECOND)
    await place.hired("j1")
    await place.runner.chain(place.event(JobCompleted("j1"), "job.completed", place.now))
    told = await place.runner.chain(place.event(JobFailed("j1"), "job.failed", place.now + 1))
    assert [kind for kind, _ in told] == ["job.failed", "alert.raised"]
    assert "it was paid" in place.runner.emitted[-1].payload["detail"]
    assert place.done() == {"release": 1}


async def test_a_stranger_s_job_that_fails_is_told_and_costs_nothing(world: Any) -> None:
    """Nobody here hired for it: no fallback agent is hired, a person hears of it."""
    place = await world(fallback_agent=SECOND)
    told = await place.runner.chain(place.event(JobFailed("theirs", "x"), "job.failed"))
    assert [kind for kind, _ in told] == ["job.failed", "alert.raised"]
    assert "nobody here hired for it" in place.runner.emitted[-1].payload["detail"]
    assert not place.done()


@pytest.mark.parametrize("kind", ["job.failed", "job.completed"])
async def test_a_word_about_a_job_waits_for_the_hiring_that_it_may_belong_to(
    world: Any, kind: str
) -> None:
    """The answer to a hiring is lost: until it is known, no job is a stranger's."""
    place = await world(fallback_agent=SECOND, faults="lost_answers=1")
    await place.hired("j1", "5")
    failed = place.event(JobFailed("j1"), "job.failed")
    await place.run(failed)
    (wish,) = place.runner.emitted
    await place.run(wish)
    said = JobFailed("unheard") if kind == "job.failed" else JobCompleted("unheard")
    assert isinstance(await place.run(place.event(said, kind)), Postpone)


async def test_a_hire_answer_does_not_change_what_was_agreed(world: Any) -> None:
    """A job id that is known already: the hiring stands, the older terms too, a person sees it."""
    place = await world(fallback_agent=SECOND)
    for job, amount in (("j1", "5.00"), ("j2", "7.00")):
        await place.hired(job, amount)

    async def same(*_: Any) -> bytes:
        return b'{"job_id": "j1"}'

    place.desk.venue.act = same
    await place.run(place.event(JobFailed("j2"), "job.failed"))
    (wish,) = place.runner.emitted
    with pytest.raises(DataError, match="job j1 is known already, under other terms"):
        await place.run(wish)
    key = wish.payload["key"]
    assert (await place.desk.store.read(lambda tx: effects.get(tx, key))).state == "done"
    known = await place.desk.store.read(lambda tx: records.terms(tx, AGENT, "j1"))
    assert known == Terms(HIRED, Decimal("5.00"))


@pytest.mark.parametrize(
    "forged",
    [
        HireRequested(hire_key(AGENT, SECOND, "j1"), SECOND, Decimal("5.01"), "j1"),
        HireRequested(hire_key(AGENT, "thief", "j1"), "thief", Decimal(5), "j1"),
        HireRequested(hire_key(AGENT, SECOND, "j9"), SECOND, Decimal(5), "j9"),
        HireRequested("any key", SECOND, Decimal(5), "j1"),
        HireRequested(hire_key(AGENT, HIRED, "e1"), HIRED, Decimal(11), escrow_id="e1"),
        HireRequested(hire_key(AGENT, SECOND, "e1"), SECOND, Decimal(10), escrow_id="e1"),
        HireRequested(hire_key(AGENT, HIRED, "e2"), HIRED, Decimal(10), escrow_id="e2"),
        HireRequested(hire_key(AGENT, HIRED, "e1"), HIRED, Decimal(-1), escrow_id="e1"),
    ],
    ids=[
        "over what was agreed",
        "another agent",
        "a stranger's job",
        "another key",
        "over HIRE_USDC",
        "not HIRE_AGENT",
        "more than the income",
        "less than nothing",
    ],
)
async def test_a_hiring_that_nobody_decided_is_refused(world: Any, forged: Any) -> None:
    """Whom, for how much and why stand in the settings and in what was agreed."""
    place = await world(fallback_agent=SECOND, income_policy="hire", hire_agent=HIRED)
    await place.hired("j1", "5.00")
    for escrow, amount in (("e1", 25), ("e2", 9)):
        released = EscrowReleased(escrow, Decimal(amount))
        await place.run(place.event(released, "escrow.released"))
    assert refusal(await place.run(place.event(forged, "job.hire_requested")))
    assert not place.done()


async def test_income_that_is_not_booked_is_waited_for_and_then_refused(world: Any) -> None:
    """What is emitted comes before what is written; what never comes is parked in the end."""
    place = await world(income_policy="reinvest")
    wish = ReinvestRequested(reinvest_key(AGENT, "e1"), Decimal(25), "e1")
    event = place.event(wish, "income.reinvest_requested", place.now)
    assert isinstance(await place.run(event, at=place.now), Postpone)
    late = await place.run(event, at=place.now + 61_000, attempt=6)
    assert isinstance(late, Fail)
    assert "no income of escrow e1 is booked" in late.failure.message
    await place.run(place.event(EscrowReleased("e1", Decimal(25)), "escrow.released", place.now))
    assert await place.run(event, replay=1) == Ack()
    assert place.done() == {"deposit": 1}


@pytest.mark.parametrize(
    ("policy", "wish"),
    [
        ("reinvest", ReinvestRequested(reinvest_key(AGENT, "e1"), Decimal(26), "e1")),
        ("reinvest", ReinvestRequested("any key", Decimal(25), "e1")),
        ("hold", ReinvestRequested(reinvest_key(AGENT, "e1"), Decimal(25), "e1")),
    ],
)
async def test_more_than_the_income_is_not_reinvested(world: Any, policy: str, wish: Any) -> None:
    """Nor under another key, nor where the policy holds it."""
    place = await world(income_policy=policy)
    await place.run(place.event(EscrowReleased("e1", Decimal(25)), "escrow.released", place.now))
    assert refusal(await place.run(place.event(wish, "income.reinvest_requested")))
    assert not place.done()


@pytest.mark.parametrize("is_on", [True, False])
async def test_the_faucet_is_claimed_under_the_key_of_its_period(world: Any, is_on: bool) -> None:
    """Any other key would be one more claim a day; without FAUCET there is none."""
    place = await world(faucet=is_on)
    key = "another" if is_on else faucet_key(AGENT, place.now, 86_400_000)
    event = place.event(ClaimRequested(key), "faucet.claim_requested", place.now)
    assert refusal(await place.run(event))
    assert not place.done()


async def test_one_escrow_that_is_released_does_not_end_another_one_s_dispute(world: Any) -> None:
    """Two escrows of one job; and a release may leave the job unnamed."""
    place = await world()
    await place.hired("j1")
    for number, escrow in enumerate(("e1", "e2")):
        disputed = EscrowDisputed(escrow, Decimal(1), "j1")
        await place.run(place.event(disputed, "escrow.disputed", place.now + number))
    event = place.event(payment(), "payment.release_requested")
    for number, escrow in enumerate(("e1", "e2")):
        assert isinstance(await place.run(event), Postpone)
        released = EscrowReleased(escrow, Decimal(1))
        await place.run(place.event(released, "escrow.released", place.now + 10 + number))
    assert await place.run(event) == Ack()
    assert place.done() == {"release": 1}


async def test_so_many_escrows_that_nobody_keeps_apart_count_as_disputed(world: Any) -> None:
    """What grows is bounded, on the safe side."""
    place = await world()
    await place.hired("j1")
    for number in range(records.MOST_ESCROWS + 1):
        name = f"e{number}"
        await place.desk.store.run(lambda tx, n=name: records.tie(tx, AGENT, "j1", n, "E"))
    event = place.event(payment(), "payment.release_requested")
    assert isinstance(await place.run(event), Postpone)
    assert not place.done()


async def test_two_replicas_on_a_job_that_is_done_pay_once(world: Any, floor: Any) -> None:
    """The platform says it four times, two replicas have it at once, answers are lost."""
    place = await world(faults="lost_answers=0.4")
    await place.hired("j1")
    runners = [place.runner, floor.Runner(place.desk, "worker-2")]
    told = [place.event(JobCompleted("j1"), "job.completed") for _ in range(4)]
    await asyncio.gather(*(runner.chain(event) for event in told for runner in runners))
    assert place.done() == {"release": 1}


@pytest.mark.parametrize("name", ["", "x" * 1_000, "x" * 1_000_000], ids=["none", "1 kB", "1 MB"])
@pytest.mark.parametrize(
    "kind", ["job.completed", "job.failed", "escrow.released", "escrow.disputed"]
)
async def test_an_absurd_name_is_parked(world: Any, kind: str, name: str) -> None:
    """No row, no payment, no alert of a megabyte: a person sees it in the failed queue."""
    place = await world(fallback_agent=SECOND)
    payload = {"job_id": name} if kind.startswith("job.") else {"escrow_id": name, "amount_usdc": 1}
    event = msgspec.structs.replace(place.event(JobCompleted("j")), type=kind, payload=payload)
    if not name:
        with pytest.raises(DataError):
            await place.run(event)
    else:
        assert "characters is no name" in refusal(await place.run(event))
    assert place.runner.emitted == []
    assert await place.desk.store.read(lambda tx: tx.query("SELECT 1 FROM cases")) == []


async def test_any_text_may_name_a_job(world: Any) -> None:
    """Quotes and signs of other scripts: one payment each; what no key can hold is parked."""
    place = await world()
    for job in ("jöb'; DROP TABLE facts; --", "工作 🚀"):
        await place.hired(job)
        told = await place.runner.chain(place.event(JobCompleted(job), "job.completed"))
        assert told[-1][1] == Ack()
    for job in ("a\0b", "a\r\nX-Agent-Id: me"):
        await place.hired(job)
        refusal(await place.run(place.event(JobCompleted(job), "job.completed")))
    assert place.done() == {"release": 2}


async def test_income_below_zero_neither_counts_nor_ends_a_dispute(world: Any) -> None:
    """It is parked; the payment that waits goes on waiting."""
    place = await world()
    await place.hired("j1")
    disputed = EscrowDisputed("e1", Decimal(-7), "j1")
    await place.run(place.event(disputed, "escrow.disputed", place.now))
    released = EscrowReleased("e1", Decimal("-0.01"), "j1")
    assert refusal(await place.run(place.event(released, "escrow.released", place.now + 1)))
    event = place.event(payment(), "payment.release_requested")
    assert isinstance(await place.run(event), Postpone)
    assert await place.desk.store.read(lambda tx: records.income(tx, AGENT)) == 0


async def test_a_reason_of_a_megabyte_hides_nothing(world: Any) -> None:
    """The dispute halts, its file is written, and the alert still says where it is."""
    place = await world()
    disputed = EscrowDisputed("e1", Decimal(1), "j1", "x" * 1_000_000)
    told = await place.runner.chain(place.event(disputed, "escrow.disputed"))
    assert [kind for kind, _ in told][-1] == "alert.raised"
    assert "the evidence is in /" in place.runner.emitted[-1].payload["detail"]
    rows = await place.desk.store.read(lambda tx: tx.query("SELECT body FROM cases"))
    assert all(len(body) < 100_000 for (body,) in rows)


def test_what_is_paid_for_hiring_is_whole_cents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the payment would have no key, and be found out when it is owed."""
    monkeypatch.setenv("HIRE_USDC", "10.005")
    with pytest.raises(SettingsError, match="HIRE_USDC is wrong"):
        load(WorldSettings)


def test_a_key_is_read_from_the_command_alone() -> None:
    """The runtime asks for it before the handler is called."""
    made: Service = service(AgentSettings(), WorldSettings())
    handler = made.find("payment.release_requested")
    assert handler is not None
    assert handler.key is not None
    assert handler.key(payment()) == payment().key


async def test_a_payment_comes_once_in_whatever_order_its_events_do(world: Any) -> None:
    """Done, disputed and released, told late and twice: paid once the dispute is over, and once."""
    place = await world()
    at = place.now
    for number, order in enumerate(itertools.permutations(range(3))):
        job, escrow = f"j{number}", f"e{number}"
        await place.hired(job)
        told = [
            place.event(JobCompleted(job), "job.completed", at),
            place.event(EscrowDisputed(escrow, Decimal(1), job), "escrow.disputed", at + 1),
            place.event(EscrowReleased(escrow, Decimal(1)), "escrow.released", at + 2),
        ]
        before = len(place.runner.emitted)
        for index in (*order, *order):
            await place.run(told[index])
        owed = [one for one in place.runner.emitted[before:] if one.type.startswith("payment.")]
        assert len(owed) == 1
        assert await place.run(owed[0]) == Ack()
    assert place.done() == {"release": 6}


async def test_a_late_word_about_a_job_neither_pays_nor_hires(world: Any) -> None:
    """What is older than what is known, by its id, is kept for the record and does nothing."""
    place = await world(fallback_agent=SECOND)
    for job, newer, older in (
        ("j1", JobFailed("j1"), JobCompleted("j1")),
        ("j2", JobCompleted("j2"), JobFailed("j2")),
    ):
        await place.hired(job, agent=SECOND)
        kinds = {JobFailed: "job.failed", JobCompleted: "job.completed"}
        await place.run(place.event(newer, kinds[type(newer)], place.now))
        before = len(place.runner.emitted)
        late = await place.run(place.event(older, kinds[type(older)], place.now - 1))
        assert "newer" in late.skipped
        assert len(place.runner.emitted) == before


async def test_a_dispute_amid_a_payment_is_waited_for(world: Any) -> None:
    """The answer was lost, then the money is disputed: not asked again before that is over."""
    place = await world(faults="lost_answers=1")
    await place.hired("j1")
    event = place.event(payment(), "payment.release_requested")
    await place.run(event)
    disputed = EscrowDisputed("e1", Decimal(1), "j1")
    await place.run(place.event(disputed, "escrow.disputed", place.now))
    calls = place.sandbox.summary()["faults"]["calls"]
    assert isinstance(await place.run(event, attempt=2), Postpone)
    assert place.sandbox.summary()["faults"]["calls"] == calls
    assert (
        await place.desk.store.read(lambda tx: effects.get(tx, event.payload["key"]))
    ).state == "unknown"
    released = EscrowReleased("e1", Decimal(1))
    await place.run(place.event(released, "escrow.released", place.now + 1))
    place.sandbox._faults._rates["lost_answers"] = 0.0
    assert await place.run(event, attempt=2) == Ack()
    assert place.done() == {"release": 1}


class Overtaken:
    """A store in which a hiring ends just after the first look at what was agreed."""

    def __init__(self, store: Any, ends: Any) -> None:
        self._store = store
        self._ends = ends

    async def read(self, query: Any) -> Any:
        """Answer as things are now, and let the hiring end."""
        found = await self._store.read(query)
        ends, self._ends = self._ends, None
        if ends is not None:
            await ends()
        return found

    def __getattr__(self, name: str) -> Any:
        """All else is as it is."""
        return getattr(self._store, name)


async def test_a_hiring_that_ends_between_two_looks_is_seen(world: Any) -> None:
    """Not known yet at the first, not under way any more at the second: it is paid all the same."""
    place = await world()
    overtaken = Overtaken(place.desk.store, lambda: place.hired("j1"))
    object.__setattr__(place.desk, "store", overtaken)
    told = await place.runner.chain(place.event(JobCompleted("j1"), "job.completed"))
    assert [kind for kind, _ in told] == ["job.completed", "payment.release_requested"]
    assert place.done() == {"release": 1}
