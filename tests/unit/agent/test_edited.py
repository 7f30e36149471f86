"""Orders that were edited, or whose limits changed, while nobody knew what became of them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from fleet.core.decision import Ack, Fail, Postpone
from fleet.core.payloads import LowBalance

BTC, ETH = "BTC/USDT", "ETH/USDT"
QUIET_MS = 60_000


def edited(event: Any, **fields: Any) -> Any:
    """The same event with these fields of its payload changed, as `replay-failed` edits it."""
    return msgspec.structs.replace(event, payload={**event.payload, **fields})


@pytest.mark.parametrize(
    "over", [{"size_usdc": Decimal(5000)}, {"leverage": Decimal(50)}], ids=["size", "leverage"]
)
async def test_an_order_edited_over_the_limits_is_not_sent(office: Any, over: Any) -> None:
    """Its place is taken and nothing is open: the limits hold for what is sent again too."""
    at = await office(faults="errors=1")
    event = at.wish(BTC, "long")
    await at.run(event, at=at.now)
    at.sandbox._faults._rates["errors"] = 0.0
    wrong = edited(event, **over)
    first = await at.run(wrong, attempt=2, at=at.now + 2_000)
    assert isinstance(first, Postpone), "an earlier request may still arrive"
    end = await at.run(wrong, attempt=2, at=at.now + QUIET_MS + 5_000)
    assert isinstance(end, Fail)
    assert at.done() == {}
    assert await at.book() == {}
    assert (await at.effect(event)).state == "failed"


async def test_limits_that_were_lowered_hold_for_what_is_sent_again(office: Any, desk: Any) -> None:
    """Reserved under 50 USDC a trade, restarted under 20: it is not sent any more."""
    at = await office(faults="errors=1")
    event = at.wish(BTC, "long")
    await at.run(event, at=at.now)
    at.sandbox._faults._rates["errors"] = 0.0
    at.runner.desk = await desk(at.sandbox.url, max_trade_usdc=20)
    end = await at.run(event, attempt=2, at=at.now + QUIET_MS + 5_000)
    assert isinstance(end, Fail)
    assert "MAX_TRADE_USDC" in end.failure.message
    assert (at.done(), await at.book()) == ({}, {})


async def test_an_order_edited_to_another_pair_takes_a_place_of_its_own(office: Any) -> None:
    """The new pair has a position: its key opens no second one beside it."""
    at = await office()
    await at.trade(ETH, "long")
    at.sandbox._faults._rates["errors"] = 1.0
    event = at.wish(BTC, "long")
    await at.run(event, at=at.now)
    at.sandbox._faults._rates["errors"] = 0.0
    moved = edited(event, pair=ETH)
    first = await at.run(moved, attempt=2, at=at.now + 2_000)
    assert isinstance(first, Postpone)
    assert isinstance(await at.run(moved, attempt=2, at=at.now + 65_000), Postpone)
    end = await at.run(moved, attempt=2, at=at.now + 66_000)
    assert isinstance(end, Ack)
    assert end.skipped == "ETH/USDT is long already"
    assert await at.venue() == {ETH: "long"}
    assert await at.book() == {ETH: ("long", "open")}


async def test_what_an_edited_order_opens_stands_in_the_book(office: Any) -> None:
    """The other way, and smaller: the book has what was sent last."""
    at = await office(faults="errors=1")
    event = at.wish(BTC, "long")
    await at.run(event, at=at.now)
    at.sandbox._faults._rates["errors"] = 0.0
    other = edited(event, direction="short", size_usdc=Decimal(20))
    assert isinstance(await at.run(other, attempt=2, at=at.now + 2_000), Postpone)
    assert isinstance(await at.run(other, attempt=2, at=at.now + 65_000), Postpone)
    assert await at.run(other, attempt=2, at=at.now + 66_000) == Ack()
    place = await at.place(event)
    assert (place.direction, place.size) == ("short", Decimal(20))
    assert await at.venue() == {BTC: "short"}


async def test_what_was_opened_before_the_edit_is_not_lost_sight_of(office: Any) -> None:
    """Executed, answer lost, edited: the book has what the venue has, and a person is told."""
    at = await office(faults="lost_answers=1")
    event = at.wish(BTC, "long")
    await at.run(event)
    end = await at.run(edited(event, pair=ETH, size_usdc=Decimal(20)), attempt=2)
    assert isinstance(end, Fail)
    place = await at.place(event)
    assert (place.pair, place.size, place.state) == (BTC, Decimal(50), "open")
    assert at.done() == {"open": 1}


async def test_a_balance_that_fell_meanwhile_stops_what_would_be_sent_again(office: Any) -> None:
    """Reserved, refused with 503, then the wallet runs low: it is let go of, once it is quiet."""
    at = await office(faults="errors=1")
    event = at.wish(BTC, "long")
    await at.run(event, at=at.now)
    at.sandbox._faults._rates["errors"] = 0.0
    await at.run(at.event(LowBalance(Decimal(5), Decimal(10)), "wallet.low_balance"))
    assert isinstance(await at.run(event, attempt=2, at=at.now + 2_000), Postpone)
    end = await at.run(event, attempt=2, at=at.now + QUIET_MS + 5_000)
    assert isinstance(end, Ack)
    assert "balance" in end.skipped
    assert (at.done(), await at.book()) == ({}, {})
