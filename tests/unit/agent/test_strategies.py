"""Strategies beside momentum: candles, garbage, and the names that users write."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.breakout import Breakout
from agent.momentum import Momentum
from agent.strategy import Strategy, Window, strategy
from fleet.core.decision import Ack, Retry
from fleet.core.errors import SettingsError
from fleet.core.payloads import MarketCandle, MarketTick
from fleet.store import Store, facts

NOW, MINUTE = 1_750_000_020_000, 60_000
GARBAGE = [Decimal(text) for text in ("NaN", "sNaN", "Infinity", "-Infinity", "0", "-0", "-1")]
PRICES = st.one_of(
    st.decimals(1, 10**6, places=2, allow_nan=False), st.sampled_from(GARBAGE)
)  # fmt: skip


def tick(price: Any, at_ms: int) -> MarketTick:
    """A tick; also one that the payload's own check would refuse."""
    made = MarketTick("BTC/USDT", Decimal(1), at_ms)
    msgspec.structs.force_setattr(made, "price", Decimal(price))
    return made


def test_a_close_beyond_the_channel_is_a_signal() -> None:
    """Above all of the last closes long, below them short, once the channel is full."""
    closes = [100, 101, 99, 100, "101.31", 100, "98.6"]
    made, window, said = Breakout(size=4, threshold=Decimal("0.003")), None, []
    for number, close in enumerate(closes):
        window, signal = made.step(window, tick(close, NOW + number * MINUTE), NOW + 10**7)
        said.append(signal.direction if signal else "")
    assert said == ["", "", "", "", "long", "", "short"]


@pytest.mark.parametrize("made", [Momentum(5), Breakout(5)], ids=["momentum", "breakout"])
@given(st.lists(st.tuples(PRICES, st.integers(-5, 20)), max_size=40))
def test_garbage_never_trades_and_never_poisons_a_window(
    made: Strategy, told: list[tuple[Decimal, int]]
) -> None:
    """A window is the same with the garbage left out: no price, out of order, from the future."""
    with_garbage: Window | None = None
    without: Window | None = None
    for price, minute in told:
        at_ms = NOW + minute * MINUTE
        before = with_garbage
        with_garbage, signal = made.step(with_garbage, tick(price, at_ms), NOW + 10 * MINUTE)
        is_useful = with_garbage is not before
        if is_useful:
            without, same = made.step(without, tick(price, at_ms), NOW + 10 * MINUTE)
            assert same == signal
            assert price.is_finite()
            assert price > 0
        else:
            assert signal is None
        assert with_garbage == without
    seen = with_garbage.prices if with_garbage else ()
    assert len(seen) <= 5


@pytest.mark.parametrize(
    "text",
    ["", "momentum", "agent.momentum", "agent.nowhere:X", "agent.momentum:Nothing",
     "agent.momentum:MINUTE_MS", "decimal:Decimal", "agent.orders:Known"],
)  # fmt: skip
def test_a_name_that_is_no_strategy_is_one_sentence(text: str) -> None:
    """What cannot be imported, made or stepped is said when a worker starts."""
    with pytest.raises(SettingsError, match="strategy"):
        strategy(text, 20, Decimal("0.003"))


def test_a_strategy_is_found_by_its_name() -> None:
    """The two that are shipped, with size and threshold."""
    for text in ("agent.momentum:Momentum", "agent.breakout:Breakout"):
        assert strategy(text, 20, Decimal("0.003")).name in text


async def test_candles_move_a_window_and_lead_to_an_order(
    floor: Any, desk: Any, store: Store
) -> None:
    """The second input: five quiet minutes, a break, one order; a candle twice changes nothing."""
    here = await desk("http://127.0.0.1:9", candle_strategy="agent.breakout:Breakout", window=5)
    runner = floor.Runner(here)
    start = floor.now() // MINUTE * MINUTE - 10 * MINUTE
    for number, close in enumerate([100, 100, 100, 100, 100, 101]):
        candle = MarketCandle("BTC/USDT", *[Decimal(close)] * 5)
        event = floor.event_of(candle, "market.candle", start + number * MINUTE)
        assert await runner.run(event) == Ack()
        assert (await runner.run(event)).skipped
    orders = [one for one in runner.emitted if one.type == "order.requested"]
    assert [one.payload["direction"] for one in orders] == ["long"]
    assert orders[0].ts == start + 5 * MINUTE, "as old as its candle"
    known = await store.read(lambda tx: facts.get(tx, f"window/{floor.AGENT}/breakout/BTC/USDT"))
    assert len(msgspec.json.decode(known.value, type=Window).prices) == 5


async def test_two_candles_at_once_lose_no_price(floor: Any, desk: Any, store: Store) -> None:
    """Where another candle moved the window meanwhile, this one is tried again."""
    here = await desk("http://127.0.0.1:9", candle_strategy="agent.breakout:Breakout")
    runner = floor.Runner(here)
    candle = MarketCandle("BTC/USDT", *[Decimal(100)] * 5)
    first = floor.event_of(candle, "market.candle", floor.now() - MINUTE)
    name = f"window/{floor.AGENT}/breakout/BTC/USDT"
    run, moved = store.commit, []

    async def commit(settled: Any) -> Any:
        if not moved:
            moved.append(1)
            other = facts.Fact(name, '{"prices":["7"]}', "0" * 26)
            await store.run(lambda tx: facts.put(tx, other))
        return await run(settled)

    store.commit = commit  # type: ignore[method-assign]  # another candle, between read and write
    with pytest.raises(Exception, match="moved on meanwhile"):
        await runner.run(first)
    assert await runner.run(first) == Ack()
    assert not isinstance(runner.decisions[-1], Retry)
    known = await store.read(lambda tx: facts.get(tx, name))
    assert msgspec.json.decode(known.value, type=Window).prices == (Decimal(7), Decimal(100))
