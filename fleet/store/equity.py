"""What an agent's closed positions have gained, and the highest that ever was; exact."""

from __future__ import annotations

from decimal import Decimal, localcontext

import msgspec

from fleet.store.api import Tx

DIGITS = 60
NOTHING = Decimal(0)


class Equity(msgspec.Struct, frozen=True, gc=False):
    """The realised profit in USDC, and its peak; both begin at 0."""

    realised: Decimal = Decimal(0)
    peak: Decimal = Decimal(0)

    def after(self, pnl: Decimal) -> Equity:
        """The equity after a position closed with `pnl`."""
        with localcontext() as exact:
            exact.prec = DIGITS
            realised = self.realised + pnl
        return Equity(realised, max(self.peak, realised))

    def drawdown(self, capital: Decimal, presumed: Decimal = NOTHING) -> Decimal:
        """How far it fell from its peak, as a fraction of `capital` and what was gained on it.

        What is `presumed` lost counts as lost. 0 at the peak, 1 where all is lost, more where more
        than that is.
        """
        whole = capital + self.peak
        return (self.peak - self.realised + presumed) / whole if whole > 0 else Decimal(1)


def get(tx: Tx, agent: str) -> Equity:
    """The agent's equity; nothing gained where nothing was ever closed."""
    rows = tx.query("SELECT realised, peak FROM equity WHERE agent = ?", (agent,))
    return Equity(Decimal(rows[0][0]), Decimal(rows[0][1])) if rows else Equity()


def add(tx: Tx, agent: str, pnl: Decimal, now_ms: int) -> None:
    """Count what a position gained when it closed."""
    _put(tx, agent, get(tx, agent).after(pnl), now_ms)


def rebase(tx: Tx, agent: str, now_ms: int) -> None:
    """Let the drawdown count from what is left now."""
    realised = get(tx, agent).realised
    _put(tx, agent, Equity(realised, realised), now_ms)


def _put(tx: Tx, agent: str, equity: Equity, now_ms: int) -> None:
    tx.execute(
        "INSERT INTO equity (agent, realised, peak, at_ms) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (agent) DO UPDATE SET realised = excluded.realised,"
        " peak = excluded.peak, at_ms = excluded.at_ms",
        (agent, str(equity.realised), str(equity.peak), now_ms),
    )
