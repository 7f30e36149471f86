"""What a demo is asked to show."""

from __future__ import annotations

import gzip
import zlib
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
    seed: int = 1
    """Of the made-up market and of the events woven in."""
    handlers: str = "agent.handlers:service"
    """The service that works."""

    def ticks(self) -> int:
        """How many trades the feed will play, at most. Raises SettingsError for a bad tape."""
        if self.trades is None:
            return self.events or EVENTS
        # The sandbox would say so too, but only once everything else is running.
        Tape(self.trades, strict=False, report=lambda _: None).check(None)
        try:
            opener = gzip.open if self.trades.read_bytes()[:2] == b"\x1f\x8b" else open
            with opener(self.trades, "rb") as lines:
                return sum(1 for _ in islice(lines, 1, self.events and self.events + 1))
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SettingsError(f"The tape {self.trades} cannot be read: {reason}.") from None

    def sandbox_words(self) -> list[str]:
        """The command line of the stand-in platform."""
        words = ["sandbox", "--port", "0", "--wait", "--speed", self.speed]
        words += ["--seed", str(self.seed)]
        if self.trades is not None:
            words += ["--trades", str(self.trades)]
        events = self.events or (None if self.trades else EVENTS)
        return [*words, *(["--events", str(events)] if events else [])]

    def settings(self) -> dict[str, str]:
        """What the workers are told beside addresses and keys."""
        threshold = self.threshold or (None if self.trades else THRESHOLD)
        return {"MOMENTUM_THRESHOLD": str(threshold)} if threshold else {}
