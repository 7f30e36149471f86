"""A service: a name, its handlers, and how each of them is to be treated."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args, get_type_hints

import msgspec
from msgspec.inspect import CustomType
from msgspec.inspect import type_info as inspect_type

from fleet.core.decision import Decision
from fleet.core.errors import DataError, SettingsError
from fleet.core.events import Event
from fleet.core.retry import NEVER, RetryPolicy
from topology.model import Lanes, Limits, Overflow, ServiceLayout
from workers.context import Context, Startup

EffectClass: TypeAlias = Literal["pure", "idempotent", "once"]
Result: TypeAlias = Decision | None
Function: TypeAlias = Callable[[Context, Any], Result | Awaitable[Result]]
Lifespan: TypeAlias = Callable[[Startup], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Handler:
    """One function and how its deliveries are treated; made by `Service.handler`."""

    name: str
    """Its function's name; it stands in the headers of what failed."""
    pattern: str
    """`domain.name`, `domain.*` or `*`."""
    function: Function
    """Takes the context and the payload; returns a decision, or None: it is done."""
    payload: Any
    """The type of its second parameter: a msgspec Struct, `dict` or `Event`."""
    is_async: bool
    """A plain function runs at once and must not block; only an `async` one has a deadline."""
    effect: EffectClass
    """pure: nothing to lose · idempotent: journalled · once: journalled, under an effect key."""
    retry: RetryPolicy
    """What happens when it raises."""
    deadline: float
    """Seconds; longer is a timeout."""
    max_age: float | None
    """Seconds after `ts` from which an event is expired instead of handled; None: never."""
    stale_after: float | None = None
    """Seconds after `ts` from which a replay is expired; None: `max_age` is the only limit.

    For what is acted upon in the moment: an operator who replays it later must say that it is
    meant (`--even-if-stale`)."""
    key: Callable[[Any], str] | None = None
    """The effect key of a payload (once)."""
    unknown: Function | None = None
    """Asked before the function where an earlier attempt may or may not have had its effect.

    It returns a decision where it knows, or None: it was certainly not done, go on (once)."""
    state: Any = None
    """The type of `Context.state`, kept for each key of the lanes."""

    def limit(self, *, is_replay: bool) -> float | None:
        """The age in seconds up to which an event is handled; None: any."""
        if not is_replay or self.stale_after is None:
            return self.max_age
        return self.stale_after if self.max_age is None else min(self.max_age, self.stale_after)

    def read(self, event: Event) -> Any:
        """The payload as the function wants it. Raises DataError where it cannot be."""
        if self.payload is Event:
            return event
        if self.payload is dict:
            return event.payload
        try:
            return msgspec.convert(event.payload, self.payload)
        except (msgspec.ValidationError, ArithmeticError) as error:
            raise DataError(f"{event.type}: {error}"[:300]) from None


@dataclass
class Service:
    """A consumer group: one work queue, its lanes, its failed queue, and its handlers.

    `lifespan` yields what handlers find in `Context.app`: clients, pools, settings.
    """

    name: str
    lanes: Lanes | None = None
    limits: Limits = field(default_factory=Limits)
    overflow: Overflow = "reject-publish"
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    lifespan: Lifespan | None = None
    handlers: dict[str, Handler] = field(default_factory=dict)

    def handler(
        self,
        pattern: str,
        *,
        effect: EffectClass = "idempotent",
        key: Callable[[Any], str] | None = None,
        unknown: Function | None = None,
        state: Any = None,
        retry: RetryPolicy | None = None,
        deadline: float = 20.0,
        max_age: float | None = None,
        stale_after: float | None = None,
    ) -> Callable[[Function], Function]:
        """Register a function for a pattern; the fields of `Handler` say what the options do.

        Raises SettingsError where they contradict each other or the pattern is taken.
        """

        def register(function: Function) -> Function:
            if pattern in self.handlers:
                raise SettingsError(f"{self.name} has two handlers for {pattern!r}; remove one.")
            self.handlers[pattern] = Handler(
                name=getattr(function, "__name__", type(function).__name__),
                pattern=pattern,
                function=function,
                payload=_payload_type(function),
                is_async=inspect.iscoroutinefunction(function),
                effect=effect,
                retry=retry or (NEVER if self._is_lane(pattern) else self.retry),
                deadline=deadline,
                max_age=max_age,
                stale_after=stale_after,
                key=key,
                unknown=unknown,
                state=state,
            )
            self._check(self.handlers[pattern])
            return function

        return register

    def find(self, event_type: str) -> Handler | None:
        """The handler for a type: its own first, then its domain's, then the one for all."""
        handlers = self.handlers
        return (
            handlers.get(event_type)
            or handlers.get(event_type.partition(".")[0] + ".*")
            or handlers.get("*")
        )

    def layout(self) -> ServiceLayout:
        """What the service asks of the broker; its bindings derive from its handlers.

        Raises SettingsError where it has no handler at all.
        """
        if not self.handlers:
            raise SettingsError(f"{self.name} has no handlers; register at least one.")
        return ServiceLayout(
            name=self.name,
            patterns=tuple(p for p in self.handlers if not self._is_lane(p)),
            lanes=self.lanes,
            limits=self.limits,
            overflow=self.overflow,
        )

    def _is_lane(self, pattern: str) -> bool:
        return self.lanes is not None and pattern == self.lanes.type

    def _check(self, handler: Handler) -> None:
        name = f"handler {handler.name!r}"
        if handler.effect not in get_args(EffectClass):
            raise SettingsError(f"{name}: an effect is one of {', '.join(get_args(EffectClass))}.")
        if (handler.key is None) == (handler.effect == "once"):
            raise SettingsError(f"{name}: effect 'once' and a key go together.")
        if handler.effect == "once" and self._is_lane(handler.pattern):
            raise SettingsError(
                f"{name}: a lane does not wait, so nothing is asked there;"
                " emit an event for a handler with the effect."
            )
        for limit in (handler.max_age, handler.stale_after):
            if limit is not None and not 0 <= limit < math.inf:
                raise SettingsError(f"{name}: an age is 0 or more seconds, not {limit}.")
        if handler.state is not None and not self._is_lane(handler.pattern):
            raise SettingsError(f"{name}: state is kept for the type of the lanes only.")
        if handler.state is not None and handler.effect != "idempotent":
            raise SettingsError(f"{name}: state is saved with the journal: effect 'idempotent'.")


def _payload_type(function: Function) -> Any:
    """The annotation of the second parameter; without one, the payload stays a dict."""
    name = f"handler {function.__module__}.{getattr(function, '__qualname__', function)}"
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 2:  # noqa: PLR2004 - the context and the payload
        raise SettingsError(f"{name} must take a context and a payload.")
    try:
        kind = get_type_hints(function).get(parameters[1].name, dict)
        is_known = not isinstance(inspect_type(kind), CustomType)
    except (TypeError, NameError):
        is_known = False
    if not is_known:
        raise SettingsError(f"{name}: its payload's type cannot be read from JSON.")
    return kind
