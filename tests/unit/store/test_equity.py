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


async def test_closing_counts_once_and_a_rebase_forgets_the_peak(store: Store) -> None:
    """Closed twice is once; a gain that nobody knows is none; agents do not mix."""

    async def close(key: str, agent: str, pnl: Decimal | None) -> None:
        wish = Position(key, agent, f"{key}/USD", "long", Decimal(50), Decimal(3), ts_ms=1)
        await store.run(lambda tx: positions.reserve(tx, wish, 99))
        for _ in range(2):
            await store.run(lambda tx: positions.closed(tx, key, pnl, None, 2))

    for key, pnl in (("a", "30.5"), ("b", "-10.25"), ("c", None)):
        await close(key, "one", Decimal(pnl) if pnl else None)
    await close("d", "two", Decimal(-7))
    now = await store.read(lambda tx: equity.get(tx, "one"))
    assert now == Equity(Decimal("20.25"), Decimal("30.5"))
    assert now.drawdown(Decimal("174.5")) == Decimal("0.05")
    await store.run(lambda tx: equity.rebase(tx, "one", 3))
    assert (await store.read(lambda tx: equity.get(tx, "one"))).drawdown(Decimal(1)) == 0
    assert (await store.read(lambda tx: equity.get(tx, "two"))).realised == -7


def test_who_lost_everything_and_is_let_go_on_has_nothing_to_lose() -> None:
    """After a rebase below the capital the drawdown is whole, not a division by zero."""
    assert Equity(Decimal(-150), Decimal(-150)).drawdown(Decimal(150)) == 1
