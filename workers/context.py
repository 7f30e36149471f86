"""What a handler is given besides its payload."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, TypeAlias

import msgspec

from fleet.amqp.delivery import Delivery
from fleet.core.alerts import KINDS, Kind, alert_event
from fleet.core.errors import LogicError
from fleet.core.events import Event, write_event
from fleet.core.ulid import derived_ulid
from fleet.store.api import Effect, Store, Tx

Publish: TypeAlias = Callable[[Event], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Startup:
    """What a service's lifespan is given.

    `publish` publishes an event from outside of a handler and returns once it is confirmed;
    it raises PublishError where it is not. Whoever may publish again gives the same id.
    """

    store: Store
    worker: str
    publish: Publish


class Effecting:
    """The effect of a `once` handler: its key, what is known of it, and what it will have become.

    `before` is the effect as it was before this attempt; None where this is the first.
    `mode` may say under which circumstances it is tried; it stands in the effect's row.
    """

    __slots__ = ("before", "holder", "key", "mode", "result", "untouched")

    def __init__(self, key: str, before: Effect | None, holder: str) -> None:
        self.key = key
        self.holder = holder
        self.before = before
        self.mode = ""
        self.result = ""
        self.untouched = False

    def done(self, result: Any) -> None:
        """Store `result` (anything msgspec can write as JSON) with the effect."""
        self.result = msgspec.json.encode(result).decode()

    def not_done(self) -> None:
        """Say that this attempt did not touch the world, whatever is raised next."""
        self.untouched = True


class Context:
    """One event in the hands of a handler, and what the handler wants done with it.

    What is handed to `emit`, `write` and `keep` happens after the handler has returned, or not at
    all: emitted events are confirmed by the broker, then writes, state and journal row commit in
    one transaction, then the delivery is acked. `carried` are headers that every emitted event
    carries; `trace` is the tracing middleware's own.
    """

    __slots__ = (
        "_delivery",
        "_state",
        "_state_type",
        "allow_stale",
        "app",
        "attempt",
        "carried",
        "effect",
        "emitted",
        "event",
        "is_replay",
        "kept",
        "now_ms",
        "trace",
        "worker",
        "writes",
    )

    def __init__(
        self,
        event: Event,
        *,
        attempt: int,
        is_replay: bool = False,
        allow_stale: bool = False,
        now_ms: int,
        worker: str,
        app: Any,
        state: Any = None,
        state_type: Any = None,
        effect: Effecting | None = None,
        delivery: Delivery | None = None,
    ) -> None:
        self.event = event
        self.attempt = attempt
        self.is_replay = is_replay
        self.allow_stale = allow_stale
        self.now_ms = now_ms
        self.worker = worker
        self.app = app
        self.effect = effect
        self.emitted: list[Event] = []
        self.writes: list[Callable[[Tx], object]] = []
        self.kept: Any = None
        self.carried: Mapping[str, str] = _NOTHING
        self.trace: Any = None
        self._delivery = delivery
        self._state = state
        self._state_type = state_type

    @property
    def headers(self) -> Mapping[str, Any]:
        """The headers that the event came with, unchecked; read when they are first asked for."""
        return self._delivery.headers if self._delivery else _NOTHING

    @property
    def queue(self) -> str:
        """The queue that the event came from."""
        return self._delivery.origin.queue if self._delivery else ""

    def log_words(self) -> dict[str, Any]:
        """What a log line says of the event while it is in hand."""
        event = self.event
        words = {"event_id": event.event_id, "type": event.type, "attempt": self.attempt}
        if "traceparent" in self.carried:
            words["trace_id"] = self.carried["traceparent"].split("-")[1]
        return words

    @property
    def state(self) -> Any:
        """What was last kept for this event's key; None at first."""
        return self._state if self.kept is None else self.kept

    def keep(self, state: Any) -> None:
        """Make `state` the state of this event's key: an immutable value of the handler's type.

        Raises LogicError where it is of another type.
        """
        if self._state_type is None or not isinstance(state, self._state_type):
            raise LogicError(f"the state kept is a {type(state).__name__}, not the handler's type")
        self.kept = state

    def write(self, work: Callable[[Tx], object]) -> None:
        """Run `work` in the transaction of the journal row, in a savepoint of its own.

        What it raises undoes it and is treated as if the handler had raised it. Raises LogicError
        in a handler with state: an undone write would leave the state of later events behind.
        """
        if self._state_type is not None:
            raise LogicError("a handler with state writes by keeping it")
        self.writes.append(work)

    def emit(self, event_type: str, payload: Mapping[str, Any] | msgspec.Struct, key: str) -> Event:
        """Publish an event; its id derives from this event, the type and `key`.

        The same key gives the same id, so that a repeated delivery emits the same event again.
        The parent's `ts` is inherited: what is late stays late.
        """
        fields = (
            payload
            if isinstance(payload, Mapping)
            else msgspec.to_builtins(payload, builtin_types=_EXACT)
        )
        event = Event(
            event_id=derived_ulid(self.event.ts, f"{self.event.event_id}:{event_type}:{key}"),
            type=event_type,
            agent_id=self.event.agent_id,
            payload=dict(fields),
            ts=self.event.ts,
        )
        write_event(event)
        self.emitted.append(event)
        return event

    def alert(
        self, name: str, *, key: str = "", detail: str = "", kind: Kind | None = None
    ) -> Event:
        """Emit `alert.raised`; those of one name and key within an hour are one event.

        Raises LogicError where the name is not known and no `kind` (severity, title) is given.
        """
        if kind is None and name not in KINDS:
            raise LogicError(f"the alert {name} needs a kind: its severity and title")
        agent = self.event.agent_id
        event = alert_event(agent, name, self.now_ms, key=key, detail=detail, kind=kind)
        self.emitted.append(event)
        return event

    @property
    def effecting(self) -> Effecting:
        """The effect; raises LogicError where the handler is not `once`."""
        if self.effect is None:
            raise LogicError("only a handler with effect 'once' has an effect")
        return self.effect


_EXACT: Final = (Decimal,)
_NOTHING: Final[Mapping[str, Any]] = {}
