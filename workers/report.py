"""What a worker says of itself: for a person who looks, not for a database of metrics."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from fleet.store.replicas import BEAT_S, Pulse, State, Work
from fleet.telemetry.health import Health
from workers.consumers import Consumers
from workers.holds import Holds
from workers.tally import Tally

SPAN_S: Final = 30.0
DONE: Final = ("done", "skipped", "expired")
FAILED: Final = "failed"
RETRIED: Final = "retried"
POSTPONED: Final = "postponed"


class Report:
    """How a worker does now, and what each of its handlers did over half a minute."""

    def __init__(self, tally: Tally, consumers: Consumers, holds: Holds, health: Health) -> None:
        self._tally = tally
        self._consumers = consumers
        self._holds = holds
        self._health = health
        self._looks: deque[_Look] = deque(maxlen=round(SPAN_S / BEAT_S) + 1)
        self._looks.append(_look(tally))

    def pulse(self) -> Pulse:
        """What it says now; what is about a time is about that since the oldest of its words."""
        old, new = self._looks[0], _look(self._tally)
        self._looks.append(new)
        span_s = max(new.at - old.at, 0.001)
        handlers = {
            name: _work(new.ends[name], old.ends[name], new.took[name], old.took[name])
            for name in new.ends
        }
        ended = sum(each.done + each.failed + each.retried for each in handlers.values())
        totals = sum(new.ends.values(), Counter())
        state, note = self._state()
        return Pulse(
            state=state,
            note=note,
            handled=sum(totals[end] for end in DONE),
            failed=totals[FAILED],
            retried=totals[RETRIED],
            in_hand=self._consumers.in_hand,
            prefetch=self._consumers.prefetch,
            window_s=round(span_s, 1),
            rate=round(ended / span_s, 2),
            lag_s=_oldest(self._tally.ages.bounds, _minus(new.ages, old.ages)),
            handlers=handlers,
        )

    def _state(self) -> tuple[State, str]:
        if self._health.draining:
            return "draining", ""
        if self._consumers.is_paused:
            return "paused", ""
        reasons = self._health.reasons()
        if reasons:
            return "unready", "; ".join(f"{part}: {why}" for part, why in reasons.items())[:200]
        paused = len(self._consumers.paused)
        return "running", f"{paused} of {len(self._consumers.all)} queues paused" if paused else ""


class _Look(NamedTuple):
    at: float
    ends: dict[str, Counter[str]]
    took: dict[str, list[int]]
    ages: list[int]


def _look(tally: Tally) -> _Look:
    return _Look(
        time.monotonic(),
        {name: Counter(ends) for name, ends in tally.ends.items()},
        {name: list(buckets.counts) for name, buckets in tally.took.items()},
        list(tally.ages.counts),
    )


def _work(
    ends: Mapping[str, int],
    before: Mapping[str, int],
    took: Sequence[int],
    took_before: Sequence[int],
) -> Work:
    more = Counter({end: count - before.get(end, 0) for end, count in ends.items()})
    return Work(
        done=sum(more[end] for end in DONE),
        failed=more[FAILED],
        retried=more[RETRIED],
        postponed=more[POSTPONED],
        took={number: n for number, n in enumerate(_minus(took, took_before)) if n},
    )


def _oldest(bounds: Sequence[float], counts: list[int]) -> float:
    """The age of the oldest, rounded up to the bound of its bucket; 0 where there was none."""
    last = max((number for number, count in enumerate(counts) if count), default=None)
    return 0.0 if last is None else bounds[min(last, len(bounds) - 1)]


def _minus(after: Sequence[int], before: Sequence[int]) -> list[int]:
    return [now - then for now, then in zip(after, before, strict=True)]
