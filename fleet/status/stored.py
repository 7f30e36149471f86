"""What the store knows of the fleet: one short read for each look, a longer one now and then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from agent import state
from agent.state import AgentState
from fleet.core.breaker import Breaker
from fleet.core.ulid import is_ulid, ulid_ms
from fleet.status.state import Cursor, Group
from fleet.store import (
    alerts,
    archive,
    audit,
    bindings,
    breakers,
    controls,
    cursors,
    lanes,
    leases,
    positions,
)
from fleet.store import replicas as presence
from fleet.store.api import Lease, Tx
from fleet.store.controls import Controls
from fleet.store.positions import Position
from fleet.store.replicas import Replica

GROUPS: Final = 5


class Told(msgspec.Struct, frozen=True):
    """What changes from second to second. `lanes` are service, queue and last owner."""

    services: tuple[str, ...]
    replicas: tuple[Replica, ...]
    controls: Controls
    lanes: tuple[tuple[str, str, str], ...]
    leases: tuple[Lease, ...]
    cursors: tuple[Cursor, ...]
    positions: tuple[Position, ...]
    doubtful: tuple[Position, ...]
    agents: dict[str, AgentState]
    breakers: dict[str, Breaker]


class Counted(msgspec.Struct, frozen=True):
    """What has to be counted: failures by service, effects by kind and state, open alerts."""

    oldest_failed_ms: dict[str, int] = {}
    groups: dict[str, tuple[Group, ...]] = {}
    effects: dict[str, dict[str, int]] = {}
    alerts: dict[str, int] = {}


def told(tx: Tx) -> Told:
    """What the store says at once."""
    return Told(
        services=tuple(bindings.services(tx)),
        replicas=tuple(presence.every(tx)),
        controls=controls.every(tx),
        lanes=tuple(lanes.every(tx)),
        leases=tuple(leases.beginning(tx, leases.BRIDGES)),
        cursors=tuple(_cursor(*row) for row in cursors.every(tx)),
        positions=tuple(positions.live(tx)),
        doubtful=tuple(positions.doubtful(tx)),
        agents=state.every(tx),
        breakers=breakers.every(tx),
    )


def counted(tx: Tx, services: Iterable[str]) -> Counted:
    """What the store has to count for us."""
    names = list(services)
    return Counted(
        oldest_failed_ms={name: archive.oldest_failed(tx, name) for name in names},
        groups={name: groups(archive.failed_lately(tx, name)) for name in names},
        effects=audit.effects(tx),
        alerts=alerts.open_counts(tx),
    )


def groups(failures: Iterable[tuple[str, str, int]]) -> tuple[Group, ...]:
    """The largest groups of failures that are alike: one handler, one type of error.

    A failure is a handler, a reason `Type: message`, and a time; the newest come first.
    """
    counts: Counter[tuple[str, str]] = Counter()
    last: dict[tuple[str, str], tuple[str, int]] = {}
    for handler, reason, at_ms in failures:
        kind = (handler, reason.partition(":")[0])
        counts[kind] += 1
        last.setdefault(kind, (reason, at_ms))
    return tuple(
        Group(kind[0], last[kind][0], count, last[kind][1])
        for kind, count in counts.most_common(GROUPS)
    )


def _cursor(source: str, cursor: str, saved_ms: int) -> Cursor:
    return Cursor(source, ulid_ms(cursor) if is_ulid(cursor) else 0, saved_ms)
