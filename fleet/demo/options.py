"""What a demo is asked to show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Final

from fleet.core.errors import SettingsError
from sandbox.tape import Tape

EVENTS: Final = 5_000
SPEED: Final = "25"
THRESHOLD: Final = Decimal("0.0005")
"""For the made-up market, so that a short demo sees orders."""

HASTE: Final = {
    "PF_API_TIMEOUT_S": "2",
    "PF_QUIET_S": "5",
    "BREAKER_OPEN_S": "10",
    "MODE_STEADY_S": "3",
}
"""At a venue that misbehaves, so that a short demo sees breakers and modes come back."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to play, and with whom."""

    trades: Path | None = None
    """The tape; without one a market is made up."""
    speed: str = SPEED
    """Times as fast as the tape, or max."""
    workers: int = 3
    """Worker processes."""
    events: int | None = None
    """The feed ends after so many trades; None: with the tape."""
    threshold: Decimal | None = None
    """Of the momentum signal; None: the agent's own."""
    kill: bool = False
    """Whether a worker and the bridge are killed on the way, and started again."""
    strict_tape: bool = False
    """Whether a tape with a bad line is refused instead of played without it."""
    seed: int = 1
    """Of the made-up market and of the events woven in."""
    handlers: str = "agent.handlers:service"
    """The service that works."""
    venue_faults: str = ""
    """What goes wrong with calls of the venue, as the stand-in is told."""

    def ticks(self, report: Callable[[str], None] = lambda _: None) -> int:
        """How many trades the feed will play; `report` hears of each bad line of the tape.

        Raises SettingsError for a tape that cannot be played, or has no trade.
        """
        if self.trades is None:
            return self.events or EVENTS
        if self.trades.is_fifo():
            raise SettingsError(f"The tape {self.trades} is a pipe; a demo needs a file.")
        # The sandbox would say so too, but only once everything else is running.
        tape = Tape(self.trades, strict=self.strict_tape, report=report)
        count = sum(1 for _ in islice(tape.trades(), self.events))
        if not count:
            raise SettingsError(f"The tape {self.trades} has no trade that can be played.")
        return count

    def sandbox_words(self) -> list[str]:
        """The command line of the stand-in platform."""
        words = ["sandbox", "--port", "0", "--wait", "--speed", self.speed]
        words += ["--seed", str(self.seed)]
        if self.trades is not None:
            words += ["--trades", str(self.trades)]
            words += ["--strict-tape"] if self.strict_tape else []
        words += ["--faults", self.venue_faults] if self.venue_faults else []
        events = self.events or (None if self.trades else EVENTS)
        return [*words, *(["--events", str(events)] if events else [])]

    def settings(self) -> dict[str, str]:
        """What the workers are told beside addresses and keys."""
        threshold = self.threshold or (None if self.trades else THRESHOLD)
        told = {"MOMENTUM_THRESHOLD": str(threshold)} if threshold else {}
        return {**told, **HASTE} if self.venue_faults else told
