"""A made-up market: seeded random walks with volatility clusters and rare jumps."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from sandbox.tape import Trade

PAIRS: Final = {
    "BTC/USDT": (Decimal(61_800), Decimal("0.01")),
    "ETH/USDT": (Decimal(2_680), Decimal("0.01")),
    "SOL/USDT": (Decimal(155), Decimal("0.01")),
    "BNB/USDT": (Decimal(510), Decimal("0.01")),
    "LTC/USDT": (Decimal(60), Decimal("0.01")),
    "LINK/USDT": (Decimal("10.5"), Decimal("0.001")),
    "ETC/USDT": (Decimal("18.9"), Decimal("0.001")),
    "ATOM/USDT": (Decimal("4.6"), Decimal("0.001")),
    "FIL/USDT": (Decimal("3.5"), Decimal("0.0001")),
    "STX/USDT": (Decimal("1.4"), Decimal("0.0001")),
    "SUI/USDT": (Decimal("0.85"), Decimal("0.0001")),
    "XRP/USDT": (Decimal("0.61"), Decimal("0.0001")),
    "ADA/USDT": (Decimal("0.33"), Decimal("0.00001")),
    "TRX/USDT": (Decimal("0.128"), Decimal("0.00001")),
    "DOGE/USDT": (Decimal("0.101"), Decimal("0.00001")),
    "VET/USDT": (Decimal("0.0213"), Decimal("0.000001")),
}
"""Sixteen, each in a lane of its own of sixteen, so that every worker has a part in the ticks."""
MEAN_GAP_MS: Final = 100.0  # of all pairs together: each trades about every 1.6 s
QTY_STEP: Final = Decimal("0.00001")
CALM: Final = 8e-5  # a trade's usual move, as a fraction of the price
ALPHA, BETA = 0.12, 0.86  # GARCH(1,1): how much a move, and the calm before it, carry on
JUMP_RATE, JUMP_SIZE = 4e-4, 0.006
WIDEST: Final = Decimal(50)  # a price stays within this factor of where it began


class Walk:
    """One pair's price: a GARCH(1,1) walk with jumps, always a positive multiple of its step."""

    def __init__(self, pair: str, start: Decimal, step: Decimal, chance: random.Random) -> None:
        self.pair = pair
        self._price = start
        self._step = step
        self._low = max(step, (start / WIDEST).quantize(step))
        self._high = (start * WIDEST).quantize(step)
        self._chance = chance
        self._variance = CALM**2

    def trade(self, ts_ms: int) -> Trade:
        """The next trade of this pair."""
        moved = (self._price * Decimal(f"{1 + self._move():.9f}")).quantize(self._step)
        self._price = min(max(moved, self._low), self._high)
        lots = self._chance.lognormvariate(-4.0, 1.5)
        qty = max(QTY_STEP, Decimal(f"{lots:.5f}"))
        return Trade(ts_ms, self.pair, self._price, qty, str(self._price), str(qty))

    def _move(self) -> float:
        move = self._chance.gauss(0.0, math.sqrt(self._variance))
        if self._chance.random() < JUMP_RATE:
            move += self._chance.choice((-1, 1)) * self._chance.uniform(0.5, 1.5) * JUMP_SIZE
        move = max(-0.05, min(0.05, move))
        usual = CALM**2 * (1 - ALPHA - BETA)
        # A jump stirs the market, but not for ever: the variance is capped.
        self._variance = min(usual + ALPHA * move**2 + BETA * self._variance, (20 * CALM) ** 2)
        return move


def made_up(seed: int, start_ms: int) -> Iterator[Trade]:
    """Trades without end from `start_ms` on; the same seed gives the same moves."""
    chance = random.Random(seed)  # noqa: S311 - a market, not a secret
    walks = [Walk(pair, start, step, chance) for pair, (start, step) in PAIRS.items()]
    passed = 0.0
    while True:
        passed += chance.expovariate(1 / MEAN_GAP_MS)
        yield chance.choice(walks).trade(start_ms + int(passed))
