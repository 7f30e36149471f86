"""What a worker may not begin now: pauses by operators, and handlers that were halted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from fleet.core.decision import Postpone
from fleet.store.controls import ALL, Controls, Halt
from topology.patterns import matches
from workers.registry import Handler, Service

SOONEST_S: Final = 2.0
LATEST_S: Final = 60.0
_SHARE: Final = 4


class Hold(NamedTuple):
    """Why something is not begun, and since when (milliseconds since 1970)."""

    reason: str
    since_ms: int

    def postponed(self, now_ms: int, uniform: Callable[[float, float], float]) -> Postpone:
        """Come back after an eighth to a quarter of the time that the hold stands, 1 to 60 s.

        A short hold ends promptly for what was put off; a long one costs the broker little.
        """
        stood_s = max(0, now_ms - self.since_ms) / 1000
        longest = min(max(stood_s / _SHARE, SOONEST_S), LATEST_S)
        return Postpone(uniform(longest / 2, longest), self.reason)


class Holds:
    """The holds of one service, asked before anything is begun.

    A whole queue is closed where every handler that it feeds is held: then nothing is taken out of
    it. What is held in a work queue that stays open is postponed, which counts no attempt and is
    not bounded by age; a lane cannot do that without losing its order, so it is closed.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._controls = Controls()
        self._here: dict[str, Halt] = {}
        lane = service.find(service.lanes.type) if service.lanes else None
        self._lane = lane
        self._work = tuple(each for each in service.handlers.values() if each is not lane)
        self.any = False

    def hear(self, controls: Controls) -> None:
        """Obey these from now on, beside what was halted here and nobody else knows yet."""
        self._controls = controls
        self.any = bool(controls.pauses or controls.halts or self._here)

    def halt(self, halt: Halt) -> None:
        """Halt a handler here and now; the fleet hears of it through the store."""
        self._here[halt.handler] = halt
        self.any = True

    def unwritten(self) -> list[Halt]:
        """What was halted here and is not in the store yet."""
        return list(self._here.values())

    def written(self, halt: Halt) -> None:
        """It is in the store: from now on that says whether it stands."""
        self._here.pop(halt.handler, None)

    @property
    def halts(self) -> list[Halt]:
        """The handlers of this service that are halted."""
        return [*self._controls.halts, *self._here.values()]

    def of(self, event_type: str, handler: Handler) -> Hold | None:
        """What withholds an event of this type from its handler, if anything."""
        return self._paused(event_type) or self._halted(handler)

    def closes(self, *, is_lane: bool) -> bool:
        """Whether nothing may be taken out of the work queue, or out of the lanes."""
        if not self.any:
            return False
        handlers = self._work if not is_lane else (self._lane,) if self._lane else ()
        return all(self.of(each.pattern, each) for each in handlers)

    def _paused(self, event_type: str) -> Hold | None:
        for pause in self._controls.pauses:
            if matches(pause.pattern, event_type):
                what = "everything" if pause.pattern == ALL else pause.pattern
                return Hold(f"paused: {what} by {pause.operator}", pause.at_ms)
        return None

    def _halted(self, handler: Handler) -> Hold | None:
        for halt in self.halts:
            if halt.handler == handler.name:
                return Hold(f"halted: {halt.reason}", halt.at_ms)
        return None
