"""How the fleet does, as values that a screen or JSON shows."""

from __future__ import annotations

import msgspec

from agent.state import AgentState
from fleet.core.breaker import Breaker
from fleet.store.api import Lease
from fleet.store.controls import Halt, Pause
from fleet.store.positions import Position
from fleet.store.replicas import Replica


class Cursor(msgspec.Struct, frozen=True):
    """How far a source is settled: the time of the last event, and when that was saved.

    `event_ms` is 0 where the cursor is no event id.
    """

    source: str
    event_ms: int
    saved_ms: int


class Group(msgspec.Struct, frozen=True):
    """Failures of one handler that are alike, as the journal has them."""

    handler: str
    error: str
    count: int
    last_ms: int


class Lanes(msgspec.Struct, frozen=True):
    """The lanes of a service: how much waits in them, and who owned how many of them last."""

    count: int = 0
    ready: int = 0
    unconsumed: int = 0
    owners: dict[str, int] = {}


class Queues(msgspec.Struct, frozen=True):
    """What is in the queues of a service. A depth is None where its queue is not there.

    `retries` has the buckets that are not empty, by their longest delay in seconds.
    """

    work: int | None
    consumers: int
    failed: int | None
    retries: dict[str, int]
    lanes: Lanes


class ServiceState(msgspec.Struct, frozen=True):
    """One service. `queues` is None while the broker cannot be asked."""

    name: str
    queues: Queues | None = None
    oldest_failed_ms: int = 0
    groups: tuple[Group, ...] = ()


class Shared(msgspec.Struct, frozen=True):
    """What belongs to no service: depths of `pf.unrouted` and `pf.quarantine`."""

    unrouted: int | None = None
    quarantine: int | None = None


class State(msgspec.Struct, frozen=True):
    """The fleet at `at_ms`. `broker` and `store` say what is wrong with them; "": they answer.

    What could not be asked is as it was when it could, or empty.
    """

    at_ms: int
    broker: str = ""
    store: str = ""
    replicas: tuple[Replica, ...] = ()
    services: tuple[ServiceState, ...] = ()
    shared: Shared = Shared()
    leases: tuple[Lease, ...] = ()
    cursors: tuple[Cursor, ...] = ()
    pauses: tuple[Pause, ...] = ()
    halts: tuple[Halt, ...] = ()
    effects: dict[str, dict[str, int]] = {}
    alerts: dict[str, int] = {}
    """How many are open, by severity."""
    positions: tuple[Position, ...] = ()
    doubtful: tuple[Position, ...] = ()
    """Closed, and nobody knows what they gained; of each `presumed` counts as lost."""
    agents: dict[str, AgentState] = {}
    breakers: dict[str, Breaker] = {}
