"""Orders at a real stand-in, booked in a real store: once, whatever happens on the way."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agent.executor import QUIET_MS, RESEND_MS
from fleet.core.decision import Ack, Expire, Fail, Postpone, Retry
from fleet.core.payloads import BalanceChanged, LowBalance
from fleet.store import effects, positions

BTC, ETH, SOL, XRP = "BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT"


class Office:
    """A desk, a stand-in and a runner, and what tests ask of them."""

    def __init__(self, floor: SimpleNamespace, sandbox: Any, desk: Any) -> None:
        self.sandbox = sandbox
        self.desk = desk
        self.runner = floor.Runner(desk)
        self.run = self.runner.run
        self.order = floor.order
        self.event = floor.event_of
        self.now = floor.now()

    def wish(self, pair: str, way: str, minute: int = 0, **more: Any) -> Any:
        """The event of an order in the given minute from now."""
        return self.event(self.order(pair, way, self.now + minute * 60_000, **more))

    async def trade(self, pair: str, way: str, minute: int = 0, **more: Any) -> Any:
        """Deliver an order once."""
        return await self.run(self.wish(pair, way, minute, **more))

    async def book(self) -> dict[str, tuple[str, str]]:
        """Direction and state of what takes a place."""
        held = await self.desk.store.read(
            lambda tx: positions.open_positions(tx, "pf_agent_sandbox")
        )
        return {one.pair: (one.direction, one.state) for one in held}

    async def venue(self) -> dict[str, str]:
        """Direction of what is open at the venue; a pair twice is a failure."""
        listed = await self.desk.venue.positions()
        assert len({one.pair for one in listed}) == len(listed)
        return {one.pair: one.direction for one in listed}

    def done(self) -> Counter[str]:
        """How often the venue did what."""
        return Counter(effect.kind for effect in self.sandbox.ledger._effects)

    async def effect(self, event: Any) -> Any:
        """The row of an order's effect."""
        key = event.payload["key"]
        return await self.desk.store.read(lambda tx: effects.get(tx, key))

    async def place(self, event: Any) -> Any:
        """The row of an order in the book."""
        key = event.payload["key"]
        return await self.desk.store.read(lambda tx: positions.get(tx, key))


@pytest.fixture
async def office(floor: SimpleNamespace, sandbox: Any, desk: Any) -> Any:
    """Open an office; keywords are settings of the stand-in and, under `agent`, of the agent."""

    async def start(agent: dict[str, Any] | None = None, **given: Any) -> Office:
        running = await sandbox(**given)
        return Office(floor, running, await desk(running.url, **(agent or {})))

    return start


async def test_an_order_opens_one_position_that_the_book_knows(office: Any) -> None:
    """Book and effect carry what the venue answered, exactly."""
    at = await office()
    event = at.wish(BTC, "long")
    assert await at.run(event) == Ack()
    assert await at.venue() == {BTC: "long"}
    place, effect = await at.place(event), await at.effect(event)
    assert (place.state, place.size, place.leverage) == ("open", Decimal(50), Decimal(3))
    assert (effect.state, msgspec.json.decode(effect.result)["position_id"]) == (
        "done",
        place.venue_id,
    )
    assert place.entry_price == Decimal(100)


async def test_an_order_that_comes_again_does_nothing(office: Any) -> None:
    """The same event, and another event with the same key, are skipped without a call."""
    at = await office()
    event = at.wish(BTC, "long")
    await at.run(event)
    assert (await at.run(event)).skipped
    assert (await at.run(at.event(at.order(BTC, "long", at.now)))).skipped
    assert at.sandbox.summary()["faults"]["calls"] == 1


async def test_the_same_direction_changes_nothing(office: Any) -> None:
    """A second long on a long pair is skipped, and says why."""
    at = await office()
    await at.trade(BTC, "long")
    assert "long already" in (await at.trade(BTC, "long", 1)).skipped
    assert at.done() == {"open": 1}


async def test_a_flip_closes_before_it_opens(office: Any) -> None:
    """Long to short: one closed with its profit in the book, one open."""
    at = await office()
    first = at.wish(BTC, "long")
    await at.run(first)
    assert await at.trade(BTC, "short", 1) == Ack()
    assert [effect.kind for effect in at.sandbox.ledger._effects] == ["open", "close", "open"]
    assert await at.venue() == {BTC: "short"}
    closed = await at.place(first)
    assert (closed.state, closed.pnl, closed.exit_price) == ("closed", Decimal(0), Decimal(100))


async def test_long_short_long_within_a_minute_is_two_orders(office: Any) -> None:
    """The third has the first one's key, which is spent: the short stays."""
    at = await office()
    await at.trade(BTC, "long")
    await at.trade(BTC, "short")
    assert (await at.trade(BTC, "long")).skipped
    assert await at.venue() == {BTC: "short"}
    assert await at.book() == {BTC: ("short", "open")}


async def test_a_late_order_undoes_nothing(office: Any) -> None:
    """An order older than the pair's newest is skipped, before anything is closed."""
    at = await office()
    await at.trade(BTC, "long", 5)
    assert (await at.trade(BTC, "short", 4)).skipped == "late"
    assert await at.venue() == {BTC: "long"}


async def test_there_are_three_positions_at_most(office: Any) -> None:
    """A fourth is skipped; after a flip the three are three."""
    at = await office()
    for pair in (BTC, ETH, SOL):
        assert await at.trade(pair, "long") == Ack()
    assert (await at.trade(XRP, "long")).skipped == "limit"
    assert await at.trade(SOL, "short", 1) == Ack()
    assert len(await at.venue()) == 3


@pytest.mark.parametrize(
    "over",
    [
        {"size_usdc": Decimal("50.01")},
        {"size_usdc": Decimal(-1)},
        {"size_usdc": Decimal(0)},
        {"leverage": Decimal("3.1")},
        {"leverage": Decimal(0)},
        {"key": "k" * 200},
        {"timestamp_ms": 10**30},
        {"timestamp_ms": 0},
    ],
)
async def test_an_order_over_the_limits_fails_without_a_call(office: Any, over: Any) -> None:
    """It is parked with the reason; its place and its key are free."""
    at = await office()
    event = at.wish(BTC, "long", **over)
    decision = await at.run(event)
    assert isinstance(decision, Fail)
    assert decision.failure.error_class == "data"
    assert (await at.effect(event)).state == "failed"
    assert at.sandbox.summary()["faults"]["calls"] == 0
    assert await at.book() == {}


async def test_a_low_balance_pauses_and_a_high_one_resumes(office: Any) -> None:
    """Nothing is opened until the balance is above the threshold; a late event undoes nothing."""
    at = await office()

    async def tell(payload: Any, kind: str, later_ms: int) -> None:
        assert await at.run(at.event(payload, kind, at.now + later_ms)) == Ack()

    await tell(LowBalance(Decimal(5), Decimal(10)), "wallet.low_balance", 10)
    assert "balance" in (await at.trade(BTC, "long")).skipped
    await tell(BalanceChanged(Decimal(10)), "wallet.balance_changed", 20)
    assert "balance" in (await at.trade(BTC, "short")).skipped
    await tell(BalanceChanged(Decimal("10.01")), "wallet.balance_changed", 30)
    await tell(LowBalance(Decimal(1), Decimal(10)), "wallet.low_balance", 5)
    assert await at.trade(ETH, "long") == Ack()


async def test_an_old_order_expires(office: Any) -> None:
    """Two minutes after its tick an order is not traded any more."""
    at = await office()
    event = at.event(at.order(BTC, "long", at.now), ts=at.now - 121_000)
    assert isinstance(await at.run(event), Expire)
    assert at.done() == {}


async def test_a_refusal_gives_the_place_back(office: Any) -> None:
    """No market for a pair: failed, and its place is free for another order."""
    at = await office(agent={"max_positions": 1})
    event = at.wish("NOPE/USDT", "long")
    decision = await at.run(event)
    assert isinstance(decision, Fail)
    assert "there is no market" in decision.failure.message
    assert (await at.effect(event)).state == "failed"
    assert await at.trade(BTC, "long") == Ack()


async def test_a_refused_order_may_be_replayed(office: Any) -> None:
    """An operator who mended the cause replays it, and it is carried out."""
    at = await office()
    event = at.wish(BTC, "long")
    url = at.desk.venue._url
    at.desk.venue._url = url + "/nowhere"
    assert isinstance(await at.run(event), Fail)
    at.desk.venue._url = url
    assert await at.run(event, replay=1) == Ack()
    assert await at.venue() == {BTC: "long"}


@pytest.mark.parametrize("idempotency", [True, False])
async def test_a_lost_answer_is_looked_up(office: Any, idempotency: bool) -> None:
    """Executed, answer lost: the effect is unknown, the next attempt finds the position."""
    at = await office(faults="lost_answers=1", idempotency=idempotency)
    event = at.wish(BTC, "long")
    decision = await at.run(event)
    assert isinstance(decision, Retry)
    assert decision.failure.error_class == "network"
    assert (await at.effect(event)).state == "unknown"
    assert await at.book() == {BTC: ("long", "reserved")}
    assert await at.run(event, attempt=2) == Ack()
    assert await at.book() == {BTC: ("long", "open")}
    assert at.done() == {"open": 1}
    assert (await at.effect(event)).state == "done"


async def test_while_the_outcome_is_unknown_the_place_is_taken(office: Any) -> None:
    """Another order of the pair waits, one of a fourth pair finds no room."""
    at = await office(faults="lost_answers=1", agent={"max_positions": 1})
    await at.trade(BTC, "long")
    assert isinstance(await at.trade(BTC, "short", 1), Postpone)
    assert (await at.trade(ETH, "long")).skipped == "limit"


async def test_server_errors_are_tried_again_under_the_same_key(office: Any) -> None:
    """503 four times is a failure with an unknown outcome; a replay settles it."""
    at = await office(faults="errors=1")
    event = at.wish(BTC, "long")
    for attempt in (1, 2, 3):
        assert isinstance(await at.run(event, attempt=attempt), Retry)
    assert isinstance(await at.run(event, attempt=4), Fail)
    assert (await at.effect(event)).state == "unknown"
    at.sandbox._faults._rates["errors"] = 0.0
    assert await at.run(event, replay=1) == Ack()
    assert at.done() == {"open": 1}


@pytest.mark.parametrize("idempotency", [True, False])
async def test_a_crash_between_answer_and_commit_opens_once(
    office: Any,
    idempotency: bool,
) -> None:
    """The worker dies with the answer in hand; the redelivery finds what it did."""
    at = await office(idempotency=idempotency)
    event = at.wish(BTC, "long")
    await at.run(event, crash=True)
    assert isinstance(await at.run(event), Postpone), "the dead worker's claim is respected"
    assert await at.run(event, at=at.now + 60_000) == Ack()
    assert at.done() == {"open": 1}
    assert await at.book() == {BTC: ("long", "open")}


async def test_a_crash_between_reserve_and_call_is_gone_on_with(
    office: Any, floor: SimpleNamespace
) -> None:
    """The redelivery finds its own reservation, learns that nothing is open, and opens."""
    at = await office(agent={"max_positions": 1})
    event = at.wish(BTC, "long")
    at.desk.venue._url, url = "http://127.0.0.1:9", at.desk.venue._url
    await at.run(event, crash=True)
    at.desk.venue._url = url
    assert await at.book() == {BTC: ("long", "reserved")}
    assert await at.run(event, at=floor.now() + 60_000) == Ack()
    assert at.done() == {"open": 1}


async def test_a_crash_while_closing_is_gone_on_with(office: Any) -> None:
    """The flip that died after its close: closed once, opened once."""
    at = await office()
    await at.trade(BTC, "long")
    flip = at.wish(BTC, "short", 1)
    at.sandbox._faults._rates["lost_answers"] = 1.0
    assert isinstance(await at.run(flip), Retry)
    assert await at.book() == {BTC: ("long", "closing")}
    at.sandbox._faults._rates["lost_answers"] = 0.0
    assert await at.run(flip, attempt=2) == Ack()
    assert at.done() == {"open": 2, "close": 1}
    assert await at.book() == {BTC: ("short", "open")}


async def test_a_closing_is_finished_even_where_its_order_expires(office: Any) -> None:
    """The flip came back too late to trade: its close is completed, nothing is opened."""
    at = await office(faults="lost_answers=0")
    await at.trade(BTC, "long")
    flip = at.wish(BTC, "short", 1)
    at.sandbox._faults._rates["lost_answers"] = 1.0
    await at.run(flip)
    at.sandbox._faults._rates["lost_answers"] = 0.0
    assert isinstance(await at.run(flip, attempt=2, at=at.now + 125_000), Expire)
    assert await at.book() == {}
    assert await at.venue() == {}


async def test_409_with_an_open_original_is_the_original(office: Any) -> None:
    """A store that lost its memory books what the venue remembers."""
    at = await office()
    event = at.wish(BTC, "long")
    made = await at.desk.venue.open(at.order(BTC, "long", at.now))
    assert await at.run(event) == Ack()
    assert (await at.place(event)).venue_id == made.position.position_id
    assert at.done() == {"open": 1}


async def test_409_with_a_closed_original_is_a_spent_minute(office: Any) -> None:
    """No position is open, the place is free, and the key is not used again."""
    at = await office()
    event = at.wish(BTC, "long")
    made = await at.desk.venue.open(at.order(BTC, "long", at.now))
    await at.desk.venue.close(made.position.position_id)
    assert (await at.run(event)).skipped == "spent"
    assert await at.book() == {}
    assert await at.trade(BTC, "short", 1) == Ack()


async def test_a_key_of_another_order_is_refused(office: Any) -> None:
    """409 with a short where a long was asked for is nobody's success."""
    at = await office()
    wrong = at.order(BTC, "short", at.now, key="shared")
    await at.desk.venue.open(wrong)
    event = at.wish(BTC, "long", key="shared")
    decision = await at.run(event)
    assert isinstance(decision, Fail)
    assert "another order" in decision.failure.message
    assert await at.book() == {}


async def test_an_old_unknown_order_is_never_sent_again(office: Any) -> None:
    """After the venue's 24 hours its positions decide; a person is told; the place is free."""
    at = await office(faults="errors=1")
    event = at.wish(BTC, "long")
    await at.run(event)
    at.sandbox._faults._rates["errors"] = 0.0
    decision = await at.run(event, attempt=2, at=at.now + RESEND_MS + 60_000)
    assert isinstance(decision, Fail)
    assert decision.failure.error_type == "UnknownOutcome"
    assert (await at.effect(event)).state == "unknown"
    assert at.done() == {}
    assert await at.book() == {}
    later = at.now + RESEND_MS + 120_000
    assert (await at.run(event, replay=1, at=later)).skipped == "spent"


async def test_an_old_unknown_order_that_is_open_is_booked(office: Any) -> None:
    """However late: what the venue lists under the key is ours."""
    at = await office(faults="lost_answers=1")
    event = at.wish(BTC, "long")
    await at.run(event)
    assert await at.run(event, attempt=2, at=at.now + RESEND_MS + 60_000) == Ack()
    assert await at.book() == {BTC: ("long", "open")}


async def test_a_stale_unknown_order_is_let_go_only_when_it_is_quiet(office: Any) -> None:
    """Too old to trade: first nothing may be on its way, then the place is given back."""
    at = await office(faults="errors=1")
    event = at.wish(BTC, "long")
    await at.run(event, at=at.now)
    at.sandbox._faults._rates["errors"] = 0.0
    late = at.now + 121_000
    assert isinstance(await at.run(event, attempt=2, at=late), Expire)
    assert await at.book() == {}
    other = at.event(at.order(ETH, "long", at.now), ts=at.now - 100_000)
    at.sandbox._faults._rates["errors"] = 1.0
    await at.run(other, at=at.now)
    at.sandbox._faults._rates["errors"] = 0.0
    waits = await at.run(other, attempt=2, at=at.now + 25_000)
    assert isinstance(waits, Postpone)
    assert waits.delay * 1000 > QUIET_MS
    then = at.now + 25_000 + int(waits.delay * 1000)
    assert isinstance(await at.run(other, attempt=2, at=then), Expire)
    assert at.done() == {}
    assert await at.book() == {}


async def test_a_position_that_the_venue_forgot_does_not_block_its_pair(office: Any) -> None:
    """Closing answers 404 and the list has no such position: the book lets go of it."""
    at = await office()
    await at.trade(BTC, "long")
    known = at.sandbox._venue
    known._positions.clear()
    known._open.clear()
    assert await at.trade(BTC, "short", 1) == Ack()
    assert await at.book() == {BTC: ("short", "open")}
