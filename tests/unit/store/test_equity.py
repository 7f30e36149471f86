"""Profit is counted exactly and once, and the drawdown is that of its history."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from fleet.store import Store, equity, positions
from fleet.store.equity import Equity
from fleet.store.positions import Position

GAINS = st.lists(st.decimals(-1000, 1000, places=6), max_size=60)


@given(GAINS, st.integers(1, 10_000))
def test_it_is_the_drawdown_of_the_whole_history(gains: list[Decimal], capital: int) -> None:
    """Kept step by step, it equals what the curve of all gains says, without a rounding."""
    now, curve = Equity(), [Fraction(0)]
    for gain in gains:
        now = now.after(gain)
        curve.append(curve[-1] + Fraction(gain))
    assert Fraction(now.realised) == curve[-1]
    assert Fraction(now.peak) == max(curve)
    exact = (max(curve) - curve[-1]) / (capital + max(curve))
    assert abs(Fraction(now.drawdown(Decimal(capital))) - exact) < Fraction(1, 10**20)


async def reserve(store: Store, key: str, agent: str) -> None:
    """A place in the book of an agent."""
    wish = Position(key, agent, f"{key}/USD", "long", Decimal(50), Decimal(3), ts_ms=1)
    await store.run(lambda tx: positions.reserve(tx, wish, 99))


async def test_what_nobody_knows_is_presumed_until_it_is_told_once(store: Store) -> None:
    """In doubt it counts as told to; then the truth counts, and neither a second time."""
    await reserve(store, "a", "one")
    for _ in range(2):
        await store.run(lambda tx: positions.closed_in_doubt(tx, "a", Decimal("12.5"), 5))
    (one,) = await store.read(lambda tx: positions.doubtful(tx, "one"))
    assert (one.state, one.presumed, one.pnl, one.closed_ms) == ("closed", Decimal("12.5"), None, 5)
    assert await store.read(lambda tx: positions.doubtful(tx, "two")) == []
    assert await store.read(lambda tx: equity.get(tx, "one")) == Equity()
    assert await store.run(lambda tx: positions.told(tx, "a", Decimal(-3), None, 6))
    assert not await store.run(lambda tx: positions.told(tx, "a", Decimal(-3), None, 7))
    await store.run(lambda tx: positions.closed(tx, "a", Decimal(-3), None, 8))
    assert await store.read(positions.doubtful) == []
    assert (await store.read(lambda tx: equity.get(tx, "one"))).realised == -3


async def test_a_doubt_that_is_accepted_counts_no_more_and_can_still_be_told(store: Store) -> None:
    """As at the end of a shutdown; a closing that hears the truth later tells it."""
    await reserve(store, "a", "one")
    await store.run(lambda tx: positions.closed_in_doubt(tx, "a", Decimal(50), 5))
    await store.run(lambda tx: positions.accept(tx, "one"))
    assert await store.read(positions.doubtful) == []
    await store.run(lambda tx: positions.closed(tx, "a", Decimal(2), Decimal(101), 9))
    found = await store.read(lambda tx: positions.get(tx, "a"))
    assert found is not None
    assert (found.pnl, found.exit_price) == (Decimal(2), Decimal(101))
    assert (await store.read(lambda tx: equity.get(tx, "one"))).realised == 2


async def test_closing_counts_once_and_a_rebase_forgets_the_peak(store: Store) -> None:
    """Closed twice is once; agents do not mix."""
    for key, agent, pnl in (("a", "one", "30.5"), ("b", "one", "-10.25"), ("d", "two", "-7")):
        await reserve(store, key, agent)
        for _ in range(2):
            await store.run(
                lambda tx, key=key, pnl=pnl: positions.closed(tx, key, Decimal(pnl), None, 2)
            )
    now = await store.read(lambda tx: equity.get(tx, "one"))
    assert now == Equity(Decimal("20.25"), Decimal("30.5"))
    assert now.drawdown(Decimal("174.5")) == Decimal("0.05")
    await store.run(lambda tx: equity.rebase(tx, "one", 3))
    assert (await store.read(lambda tx: equity.get(tx, "one"))).drawdown(Decimal(1)) == 0
    assert (await store.read(lambda tx: equity.get(tx, "two"))).realised == -7


def test_what_is_presumed_lost_counts_as_lost() -> None:
    """On top of what was lost for sure."""
    assert Equity(Decimal(-15)).drawdown(Decimal(150), Decimal(30)) == Decimal("0.3")


def test_who_lost_everything_and_is_let_go_on_has_nothing_to_lose() -> None:
    """After a rebase below the capital the drawdown is whole, not a division by zero."""
    assert Equity(Decimal(-150), Decimal(-150)).drawdown(Decimal(150)) == 1
