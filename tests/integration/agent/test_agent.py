"""From ticks on the broker to positions at the venue, over three workers."""

from __future__ import annotations

from typing import Any

from fleet import clock

MINUTE = 60_000


def this_minute() -> int:
    """The start of the running minute."""
    return clock.now_ms() // MINUTE * MINUTE


async def move(agents: Any, pair: str, start: int, prices: list[int]) -> None:
    """Publish a pair's prices, 100 ms apart on its own clock."""
    for number, price in enumerate(prices):
        await agents.tick(pair, price, start + 100 * number)


async def test_moves_become_positions_and_no_more_than_three(
    agents: Any, pairs: tuple[str, ...]
) -> None:
    """Five pairs rise: five orders, three positions, two skipped; book and venue agree."""
    await agents.start()
    for pair in pairs:
        await move(agents, pair, this_minute(), [1000] * 19 + [1004] * 5)
    outcomes = await agents.settled(orders=5)
    assert sorted(outcomes["on_order"]) == ["done"] * 3 + ["skipped"] * 2
    assert set(outcomes["on_tick"]) == {"done"}
    assert agents.venue() == await agents.book()
    assert len(agents.venue()) == 3


async def test_a_flip_closes_first_and_late_ticks_change_nothing(agents: Any) -> None:
    """Up, then down in the next minute: one closed, a short open; what comes late is skipped.

    The next minute's first order is long again: it changes nothing, whichever worker is faster.
    """
    await agents.start()
    start = this_minute() - MINUTE
    await move(agents, "BTC/USDT", start, [1000] * 19 + [1010])
    await agents.settled(orders=1)
    await move(agents, "BTC/USDT", start + MINUTE, [1010] * 19 + [990])
    await agents.settled(orders=3)
    await move(agents, "BTC/USDT", start + 1000, [2000] * 20)
    outcomes = await agents.settled(orders=3)
    assert sorted(outcomes["on_order"]) == ["done", "done", "skipped"]
    assert outcomes["on_tick"].count("skipped") == 20
    assert agents.venue() == await agents.book() == {"BTC/USDT": "short"}
    done = agents.sandbox.summary()
    assert (done["opened"], done["closed"]) == (2, 1)


async def test_a_lost_answer_ends_in_one_position(agents: Any) -> None:
    """The venue opens and hangs up, and knows no idempotency: the retry finds the position."""
    await agents.start(faults="lost_answers=1", idempotency=False)
    await move(agents, "BTC/USDT", this_minute(), [1000] * 19 + [1010])
    outcomes = await agents.settled(orders=1)
    assert outcomes["on_order"] == ["done"]
    assert agents.venue() == await agents.book() == {"BTC/USDT": "long"}
    assert agents.sandbox.summary()["opened"] == 1
