"""What a replay of a message would do, as far as can be known before. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from fleet.core.errors import DataError
from fleet.core.events import Event, read_event
from fleet.store.api import Effect
from fleet.store.journal import Row, counts_as_seen
from replay.entry import Entry
from topology import names
from topology.patterns import matches
from workers.registry import Handler, Service

Outcome: TypeAlias = Literal["run", "done", "expired", "refused"]
SENT: Final = frozenset({"run", "done"})
"""What goes home; the worker skips what is done, and nothing else takes it out of the queue."""


class Verdict(NamedTuple):
    """What would become of it, and why in words."""

    outcome: Outcome
    why: str = ""


class Reading(NamedTuple):
    """A message as the service would read it; `fault` is why it could not."""

    entry: Entry
    event_id: str = ""
    ts: int = 0
    handler: Handler | None = None
    effect_key: str = ""
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What journal, effects and broker say of the messages that are judged."""

    now_ms: int
    rows: Mapping[str, Row]
    """Journal rows of the service by event id."""
    effects: Mapping[str, Effect]
    homes: Collection[str]
    """The queues that a message can go home to."""


class Judge:
    """Reads and judges the messages of one service.

    `even_if_stale` lifts every age limit.
    """

    def __init__(self, service: Service, *, even_if_stale: bool = False) -> None:
        self._service = service
        self._patterns = service.layout().fed
        self.even_if_stale = even_if_stale

    def read(self, entry: Entry, body: bytes, now_ms: int) -> Reading:
        """The message as the service would read it."""
        event: Event | None = None
        try:
            event = read_event(body, now_ms, payload=False)
            handler = self._service.find(event.type)
            if handler is None or (entry.by == "unrouted" and entry.exchange != names.REDELIVER):
                return Reading(entry, event.event_id, event.ts, handler)
            key = handler.key(handler.read(event)) if handler.key else ""
        except DataError as error:
            name, ts = (event.event_id, event.ts) if event else ("", 0)
            return Reading(entry, name, ts, fault=f"it cannot be read: {error}")
        except Exception as error:  # noqa: BLE001 - a key function is the user's code
            return Reading(entry, fault=f"it has no effect key: {type(error).__name__}: {error}")
        return Reading(entry, event.event_id, event.ts, handler, key)

    def judge(self, reading: Reading, known: Knowledge) -> Verdict:
        """What would become of a replay."""
        if reading.fault:
            return Verdict("refused", f"{reading.fault}; edit or resolve it")
        if reading.entry.by == "unrouted":
            return self._unrouted(reading, known)
        if reading.handler is None:
            return Verdict("refused", f"nobody handles {reading.entry.type}")
        if self.home(reading.entry) not in known.homes:
            home = self.home(reading.entry)
            return Verdict("refused", f"{home} is no queue of {self._service.name}")
        return self._known(reading, reading.handler, known)

    def home(self, entry: Entry) -> str:
        """The queue it goes back to: where it failed; where nothing says so, the work queue."""
        return entry.home or names.work_queue(self._service.name)

    def _unrouted(self, reading: Reading, known: Knowledge) -> Verdict:
        entry = reading.entry
        if entry.exchange in (names.REDELIVER, names.DLX):
            there = entry.home in known.homes
            return Verdict("run") if there else Verdict("refused", f"there is no {entry.home}")
        if any(matches(pattern, entry.type) for pattern in self._patterns):
            return Verdict("run", f"{self._service.name} takes it now")
        return Verdict("refused", f"{self._service.name} does not take {entry.type}")

    def _known(self, reading: Reading, handler: Handler, known: Knowledge) -> Verdict:
        replay = reading.entry.replays + 1
        row = known.rows.get(reading.event_id)
        if row is not None and counts_as_seen(row, replay):
            again = "" if row[0] in ("done", "skipped") else f" in replay {row[1]}"
            return Verdict("done", f"the journal has it as {row[0]}{again}")
        effect = known.effects.get(reading.effect_key) if reading.effect_key else None
        if effect is not None and effect.state == "done":
            return Verdict("done", f"effect {effect.key} is done")
        if effect is not None and effect.state == "failed" and effect.replay_count >= replay:
            return Verdict("refused", f"effect {effect.key} failed in replay {effect.replay_count}")
        if effect is not None and effect.state == "unknown" and handler.unknown is None:
            return Verdict("refused", f"effect {effect.key} is unknown; resolve the effect first")
        if effect is not None and (effect.state == "unknown" or effect.holder):
            why = f"effect {effect.key} is {effect.state}: the venue is asked first"
            return Verdict("run", why)
        return self._aged(reading, handler, known) or Verdict("run")

    def _aged(self, reading: Reading, handler: Handler, known: Knowledge) -> Verdict | None:
        limit = handler.limit(is_replay=True)
        age = (known.now_ms - reading.ts) / 1000
        if self.even_if_stale or limit is None or age <= limit:
            return None
        return Verdict("expired", f"{age:.0f} s old; {limit:g} s are allowed")
