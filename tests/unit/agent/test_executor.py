"""Orders at a real stand-in, booked in a real store: what is traded, and what is not."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from fleet.core.decision import Ack, Expire, Fail
from fleet.core.payloads import BalanceChanged, LowBalance

BTC, ETH, SOL, XRP = "BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT"


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
        assert isinstance(await at.run(at.event(payload, kind, at.now + later_ms)), Ack)

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
