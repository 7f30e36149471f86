"""Shows on stderr how a demo gets on: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

PLAIN_EVERY_S: Final = 3.0


class Figures(msgspec.Struct, frozen=True):
    """How far everybody is; two that are equal mean that nothing moved."""

    emitted: int = 0
    feed: str = "waiting"
    received: int = 0
    journaled: int = 0
    effects: int = 0
    queued: int = 0

    def __str__(self) -> str:
        return (
            f"emitted {self.emitted:,}  bridged {self.received:,}"
            f"  journaled {self.journaled:,}  orders at the venue {self.effects:,}"
        )


class Show:
    """Tells a person what happens; nothing of it goes to stdout."""

    def __init__(self, total: int) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = self._console.is_terminal
        self._next = 0.0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        self._task = self._progress.add_task("starting", total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, sentence: str) -> None:
        """One line that stays."""
        self._console.print(sentence, markup=False, soft_wrap=True)

    def figures(self, figures: Figures, ticks: int) -> None:
        """How far it is; `ticks` of the total are handled."""
        if self._live:
            self._progress.update(self._task, completed=ticks, description=str(figures))
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + PLAIN_EVERY_S
            self.say(str(figures))
