"""The momentum strategy: signals what it should, and no garbage ever."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent.momentum import Momentum
from agent.strategy import Signal, Window
from fleet.core.payloads import MarketTick

NOW = 1_750_000_000_000
MINUTE = 60_000
GARBAGE = [Decimal(text) for text in ("NaN", "sNaN", "Infinity", "-Infinity", "0", "-0", "-1")]


def tick(price: Decimal | int | str, at: int) -> MarketTick:
    """A tick; also one that the payload's own check would refuse."""
    made = MarketTick("BTC/USDT", Decimal(1), at)
    msgspec.structs.force_setattr(made, "price", Decimal(price))
    return made


def play(
    ticks: list[tuple[Decimal | int | str, int]], strategy: Momentum | None = None
) -> tuple[Window | None, list[Signal]]:
    """The window and the signals after these prices and times."""
    strategy, window, signals = strategy or Momentum(), None, []
    for price, at in ticks:
        window, signal = strategy.step(window, tick(price, at), NOW)
        signals += [signal] if signal else []
    return window, signals


def steady(prices: list[Decimal | int | str], start: int = NOW - MINUTE) -> list[tuple]:
    """Prices, 100 ms apart."""
    return [(price, start + 100 * n) for n, price in enumerate(prices)]


def test_a_rise_over_the_full_window_is_a_long_signal() -> None:
    """19 quiet ticks and one 0.4 % above the first: long, at that price and time."""
    ticks = steady([1000] * 19 + [1004])
    _, signals = play(ticks)
    assert signals == [Signal("long", Decimal(1004), ticks[-1][1])]


def test_a_fall_is_a_short_signal() -> None:
    """The same downwards."""
    _, signals = play(steady([1000] * 19 + [996]))
    assert [signal.direction for signal in signals] == ["short"]


def test_exactly_the_threshold_is_not_more_than_it() -> None:
    """0.3 % is quiet."""
    _, signals = play(steady([1000] * 19 + [1003] + [1000] * 19 + [997]))
    assert signals == []


def test_a_window_that_is_not_full_is_quiet() -> None:
    """However far 19 ticks move, there is nothing to compare yet."""
    _, signals = play(steady([1000] * 18 + [2000]))
    assert signals == []


def test_a_direction_is_signalled_once_a_minute() -> None:
    """A climb of 50 ticks within one minute is one order; long, short, long are two."""
    start = NOW - NOW % MINUTE - MINUTE
    _, signals = play(steady([1000 + 2 * n for n in range(50)], start))
    assert [signal.direction for signal in signals] == ["long"]
    wave = [1000] * 19 + [1010] * 20 + [1000] * 20 + [1010] * 20
    _, signals = play(steady(wave, start))
    assert [signal.direction for signal in signals] == ["long", "short"]


def test_the_next_minute_is_a_new_one() -> None:
    """A climb over a minute's end is one signal for each minute."""
    start = NOW - NOW % MINUTE - MINUTE - 2500
    _, signals = play(steady([1000 + 2 * n for n in range(50)], start))
    assert len({signal.timestamp_ms // MINUTE for signal in signals}) == len(signals) == 2


@given(st.lists(st.tuples(st.sampled_from(GARBAGE), st.integers(-(10**20), 10**20)), max_size=60))
def test_garbage_never_trades(ticks: list[tuple[Decimal, int]]) -> None:
    """No sequence of prices that are none makes a window or a signal."""
    assert play(ticks) == (None, [])


@given(st.data())
def test_garbage_between_does_not_change_what_is_signalled(data: st.DataObject) -> None:
    """With garbage, stale and future ticks strewn in, window and signals are the same."""
    step = st.integers(0, 5000)
    good, at = [], NOW - 10 * MINUTE
    for price, gap in data.draw(st.lists(st.tuples(st.integers(990, 1010), step), max_size=80)):
        at += gap
        good.append((price, at))
    bad = st.one_of(
        st.tuples(st.sampled_from(GARBAGE), st.integers(-(10**6), NOW)),
        st.tuples(st.just(5000), st.integers(-(10**6), NOW - 10 * MINUTE - 1)),
        st.tuples(st.just(5000), st.integers(NOW + 6 * MINUTE, 10**20)),
    )
    mixed = []
    for one in good:
        # Before the first good tick any old price would be as good as another.
        mixed += [*(data.draw(st.lists(bad, max_size=2)) if mixed else []), one]
    assert play(mixed) == play(good)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 90_000)), max_size=120))
def test_no_key_is_signalled_twice(moves: list[tuple[int, int]]) -> None:
    """Whatever prices do: one signal for each direction and minute, in order of time."""
    at, ticks = NOW - 200 * MINUTE, []
    for price, gap in moves:
        at += gap
        ticks.append((price, at))
    _, signals = play(ticks, Momentum(size=3))
    keys = [(signal.direction, signal.timestamp_ms // MINUTE) for signal in signals]
    assert len(set(keys)) == len(keys)
    assert all(a.timestamp_ms <= b.timestamp_ms for a, b in pairwise(signals))


def test_a_window_survives_the_store() -> None:
    """What is written as JSON text and read back goes on as if it had never been away."""
    window, _ = play(steady([1000] * 10 + ["1000.000000000000000001"] * 9))
    body = msgspec.json.Encoder(decimal_format="string").encode(window)
    back = msgspec.json.decode(body, type=Window)
    assert back == window
    last = tick(1010, NOW)
    assert Momentum().step(back, last, NOW) == Momentum().step(window, last, NOW)


def test_a_window_of_another_size_is_cut_or_filled() -> None:
    """A changed setting needs no new store."""
    window, _ = play(steady([1000] * 20))
    smaller, signal = Momentum(size=5).step(window, tick(1010, NOW), NOW)
    assert signal is not None
    assert smaller is not None
    assert len(smaller.prices) == 5
    larger, signal = Momentum(size=50).step(window, tick(1010, NOW), NOW)
    assert larger is not None
    assert (len(larger.prices), signal) == (21, None)
