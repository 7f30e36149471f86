"""Who is at work: each worker and bridge says every few seconds how it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import msgspec

from fleet.store.api import Tx

Kind: TypeAlias = Literal["worker", "bridge"]
State: TypeAlias = Literal["running", "paused", "draining", "unready", "leading", "standby"]

BEAT_S: Final = 2.0
"""How often a replica says how it does."""
SILENT_S: Final = 3 * BEAT_S
"""A replica that said nothing for so long is taken for dead."""
KEPT_MS: Final = 86_400_000
"""What is older was said by a replica that nobody asks about any more."""


class Work(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What one handler did in a pulse's window: deliveries by their end, and how long they took.

    `took` counts handler times by the number of their bucket in `fleet.telemetry.metrics`.
    """

    done: int = 0
    failed: int = 0
    retried: int = 0
    postponed: int = 0
    took: dict[int, int] = {}


class Pulse(msgspec.Struct, frozen=True, gc=False):
    """What a replica says of itself.

    Totals count since it started; `rate` and `handlers` are about the last `window_s` seconds;
    `lag_s` is the age of the oldest event among those handled in it. `note` is what a person
    should read beside the state.
    """

    state: State
    handled: int = 0
    failed: int = 0
    retried: int = 0
    in_hand: int = 0
    prefetch: int = 0
    window_s: float = 0.0
    rate: float = 0.0
    lag_s: float = 0.0
    note: str = ""
    handlers: dict[str, Work] = {}


class Replica(msgspec.Struct, frozen=True, gc=False):
    """A process of the fleet; `instance` tells it from another one under the same name.

    `at_ms` is when it last said how it does, by its own clock.
    """

    kind: Kind
    name: str
    instance: str
    service: str
    host: str
    pid: int
    version: str
    started_ms: int
    at_ms: int
    pulse: Pulse

    def is_live(self, now_ms: int) -> bool:
        """Whether it said so lately."""
        return now_ms - self.at_ms < SILENT_S * 1000


def beat(tx: Tx, replica: Replica, instead_of: Replica | None = None) -> bool:
    """Write down how a replica does; False where its name is another's.

    It takes the name of `instead_of` if that one has said nothing since.
    """
    old = (instead_of.instance, instead_of.at_ms) if instead_of else ("", 0)
    return tx.execute(_BEAT, (*_row(replica), *old)) == 1


def under(tx: Tx, kind: Kind, name: str) -> Replica | None:
    """The replica that has this name."""
    rows = tx.query(f"{_SELECT} WHERE kind = ? AND name = ?", (kind, name))
    return _replica(rows[0]) if rows else None


def every(tx: Tx) -> list[Replica]:
    """All that are known, by service and name: also those that fell silent."""
    return [_replica(row) for row in tx.query(f"{_SELECT} ORDER BY kind DESC, service, name")]


def running(tx: Tx, service: str) -> dict[str, tuple[str, int]]:
    """What each worker of `service` said last, where that was that it runs: instance and time."""
    rows = tx.query(
        "SELECT name, instance, at_ms, pulse FROM replicas WHERE kind = ? AND service = ?",
        ("worker", service),
    )
    return {
        name: (instance, at_ms)
        for name, instance, at_ms, pulse in rows
        if _read(pulse).state == "running"
    }


def leave(tx: Tx, replica: Replica) -> None:
    """It ends: nobody need wait until it is silent."""
    tx.execute(
        "DELETE FROM replicas WHERE kind = ? AND name = ? AND instance = ?",
        (replica.kind, replica.name, replica.instance),
    )


def prune(tx: Tx, now_ms: int) -> int:
    """Forget those that have been silent for a day; how many there were."""
    return tx.execute("DELETE FROM replicas WHERE at_ms < ?", (now_ms - KEPT_MS,))


_COLUMNS: Final = Replica.__struct_fields__
_LIST: Final = ", ".join(_COLUMNS)
_SELECT: Final = f"SELECT {_LIST} FROM replicas"
_SET: Final = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[2:])
_BEAT: Final = (
    f"INSERT INTO replicas ({_LIST}) VALUES ({', '.join('?' * len(_COLUMNS))})"
    f" ON CONFLICT (kind, name) DO UPDATE SET {_SET}"
    " WHERE replicas.instance = excluded.instance"
    " OR (replicas.instance = ? AND replicas.at_ms = ?)"
)
_read: Final[Callable[[str], Pulse]] = msgspec.json.Decoder(Pulse).decode


def _row(replica: Replica) -> tuple[str | int, ...]:
    *plain, pulse = msgspec.structs.astuple(replica)
    return (*plain, msgspec.json.encode(pulse).decode())


def _replica(row: tuple[Any, ...]) -> Replica:
    found = dict(zip(_COLUMNS, row, strict=True))
    return Replica(**{**found, "pulse": _read(found["pulse"])})
