"""Ticks, candles, the made-up market and the script."""

from __future__ import annotations

from decimal import Decimal
from itertools import islice, pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sandbox.feed import MINUTE_MS, Item, market, weave
from sandbox.market import PAIRS, made_up
from sandbox.script import ROUND, THRESHOLD, Script
from sandbox.tape import Tape, Trade, read_trade, to_stderr


def payload(item: Item) -> dict[str, Any]:
    """The payload with its numbers as exact texts."""
    fields = msgspec.json.decode(item.payload, type=dict[str, msgspec.Raw])
    return {name: bytes(raw).decode().strip('"') for name, raw in fields.items()}


@st.composite
def tapes(draw: st.DrawFn) -> list[Trade]:
    """Trades of two pairs in the order of time."""
    gaps = draw(st.lists(st.integers(0, 40_000), min_size=1, max_size=40))
    trades, at = [], 1_700_000_000_000
    for gap in gaps:
        at += gap
        pair = draw(st.sampled_from(("A/B", "C/D")))
        cents, lots = draw(st.integers(1, 10_000)), draw(st.integers(0, 500))
        trades.append(read_trade(f"{at},{pair},{cents / 100:.2f},{lots / 1000:.3f}".encode()))
    return trades


@given(tapes())
def test_candles_are_what_a_reckoning_by_hand_gives(trades: list[Trade]) -> None:
    """Each finished minute of a pair is told once: first, highest, lowest, last price and sum."""
    told = [payload(item) for item in market(trades) if item.type == "market.candle"]
    by_hand = []
    for pair in ("A/B", "C/D"):
        of_pair = [trade for trade in trades if trade.pair == pair]
        minutes = sorted({trade.ts_ms // MINUTE_MS for trade in of_pair})
        for minute in minutes[:-1]:
            inside = [trade for trade in of_pair if trade.ts_ms // MINUTE_MS == minute]
            prices = [trade.price for trade in inside]
            volume = sum(trade.qty for trade in inside)
            numbers = (prices[0], max(prices), min(prices), prices[-1], volume)
            by_hand.append((pair, minute * MINUTE_MS, *numbers))
    names = ("open", "high", "low", "close", "volume")
    assert sorted(by_hand) == sorted(
        (candle["pair"], int(candle["ts_ms"]), *(Decimal(candle[name]) for name in names))
        for candle in told
    )


@given(tapes())
def test_every_trade_is_a_tick_in_order(trades: list[Trade]) -> None:
    """Ticks carry pair, price, quantity and time of their trade, letter for letter."""
    ticks = [payload(item) for item in market(trades) if item.type == "market.tick"]
    assert [(tick["timestamp_ms"], tick["pair"], tick["price"], tick["qty"]) for tick in ticks] == [
        (str(trade.ts_ms), trade.pair, trade.price_text, trade.qty_text) for trade in trades
    ]
    assert all(
        Decimal(tick["low"]) <= Decimal(tick["price"]) <= Decimal(tick["high"])
        and tick["close"] == tick["price"]
        for tick in ticks
    )


def test_a_late_trade_changes_no_bar() -> None:
    """A trade of a minute that was closed is a tick, and no candle is told twice."""
    lines = (b"60000,A/B,5,1", b"120000,A/B,6,1", b"119999,A/B,9,1", b"180000,A/B,7,1")
    items = list(market(map(read_trade, lines)))
    assert [item.type.removeprefix("market.") for item in items] == [
        "tick", "candle", "tick", "tick", "candle", "tick",
    ]  # fmt: skip
    assert payload(items[4])["high"] == "6"


def test_recorded_numbers_are_told_exactly(recorded: Path) -> None:
    """Over the recorded trades no price and no quantity changes a character."""
    trades = list(Tape(recorded, strict=True, report=to_stderr).trades())
    items = list(market(trades))
    ticks = [item for item in items if item.trade is not None]
    assert len(ticks) == 34_419
    for tick in ticks:
        assert f'"price":{tick.trade.price_text},' in tick.payload
        assert f'"qty":{tick.trade.qty_text},' in tick.payload
    assert len(items) - len(ticks) == 22


@given(st.integers(0, 2**32))
def test_the_made_up_market_is_seeded_and_sane(seed: int) -> None:
    """The same seed gives the same trades: positive prices on their grid, time going on."""
    trades = list(islice(made_up(seed, 1000), 300))
    assert trades == list(islice(made_up(seed, 1000), 300))
    times = [trade.ts_ms for trade in trades]
    assert times == sorted(times)
    for trade in trades:
        assert trade.price > 0
        assert trade.qty > 0
        assert trade.price == trade.price.quantize(PAIRS[trade.pair][1])
        assert read_trade(
            f"{trade.ts_ms},{trade.pair},{trade.price_text},{trade.qty_text}".encode()
        )


def test_each_pair_of_the_made_up_market_has_a_lane_of_its_own() -> None:
    """With the usual sixteen lanes, so that all workers of a demo share in its ticks."""
    assert len(PAIRS) == 16
    assert {crc32(pair.encode()) % 16 for pair in PAIRS} == set(range(16))


def test_the_made_up_market_moves() -> None:
    """Calm and stirred times alternate, and there are jumps: it is no plain random walk."""
    prices: dict[str, list[Decimal]] = {}
    for trade in islice(made_up(7, 0), 60_000):
        prices.setdefault(trade.pair, []).append(trade.price)
    moves = [
        abs(float(after / before - 1))
        for told in prices.values()
        for before, after in pairwise(told)
    ]
    assert max(moves) > 0.003
    assert sum(move > 0.003 for move in moves) < len(moves) / 500
    mean = sum(moves) / len(moves)
    products = [(first - mean) * (second - mean) for first, second in pairwise(moves)]
    assert sum(products) > 0


@given(st.integers(0, 50), st.integers(1, 20))
def test_script_events_come_after_every_so_many_ticks(ticks: int, every: int) -> None:
    """One event of the script per `every` ticks, and none for 0."""
    lines = [f"{at + 1},A/B,1,1".encode() for at in range(ticks)]
    woven = list(weave(market(map(read_trade, lines)), Script(1, "a"), every))
    assert len(woven) == ticks + ticks // every
    assert len(list(weave(market(map(read_trade, lines)), Script(1, "a"), 0))) == ticks


@given(st.integers(0, 2**32))
def test_the_script_tells_every_kind_and_hangs_together(seed: int) -> None:
    """A round tells each kind; low balances are below the threshold, and the next is above."""
    script, again = Script(seed, "pf_agent_a"), Script(seed, "pf_agent_a")
    told = [script.next() for _ in range(3 * len(ROUND))]
    assert told == [again.next() for _ in range(3 * len(ROUND))]
    assert {kind for kind, _ in told[: len(ROUND)]} == set(ROUND)
    for kind, text in told:
        fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        if kind == "wallet.low_balance":
            assert Decimal(bytes(fields["balance_usdc"]).decode()) < THRESHOLD
        if kind == "wallet.balance_changed":
            assert Decimal(bytes(fields["new_balance_usdc"]).decode()) >= THRESHOLD
        if kind.startswith("escrow."):
            assert Decimal(bytes(fields["amount_usdc"]).decode()) > 0
