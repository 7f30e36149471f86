"""Lanes that are being moved: meanwhile nobody may begin to fill or to empty them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias

from fleet.core.errors import TopologyError
from fleet.store import leases, replicas
from fleet.store.api import Tx

Step: TypeAlias = Literal["renew", "gather", "spread"]


class LaneMove(NamedTuple):
    """A move that has begun and not ended.

    "renew": the same lanes under other arguments; workers go on. "gather", then "spread": another
    number of lanes; no worker may begin.
    """

    service: str
    step: Step
    partitions: int


def begin(tx: Tx, move: LaneMove, now_ms: int) -> None:
    """Write down that a service's lanes are being moved, or that the next step begins.

    Raises TopologyError where a bridge leads or, for another number of lanes, a worker of the
    service is at work. Both say so here before they ask whether lanes are being moved, so that
    none of them can slip through.
    """
    if move.step != "spread":
        _refuse_beside_a_bridge(tx, now_ms)
    if move.step == "gather":
        _refuse_beside_workers(tx, move.service, now_ms)
    tx.execute(
        "INSERT INTO lane_moves (service, step, partitions, at_ms) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (service) DO UPDATE"
        " SET step = excluded.step, partitions = excluded.partitions, at_ms = excluded.at_ms",
        (*move, now_ms),
    )


def end(tx: Tx, service: str) -> None:
    """Write down that they are where they belong."""
    tx.execute("DELETE FROM lane_moves WHERE service = ?", (service,))


def under_way(tx: Tx) -> dict[str, LaneMove]:
    """The moves that have begun and not ended, by service."""
    rows = tx.query("SELECT service, step, partitions FROM lane_moves")
    return {row[0]: LaneMove(*row) for row in rows}


def refuse_bridge(tx: Tx) -> None:
    """Raise TopologyError while any lane is being moved."""
    for move in under_way(tx).values():
        raise TopologyError(_WAIT.format(move.service))


def refuse_worker(tx: Tx, service: str) -> None:
    """Raise TopologyError while the service's lanes are being made in another number."""
    move = under_way(tx).get(service)
    if move is not None and move.step != "renew":
        raise TopologyError(_WAIT.format(service))


def move_states(tx: Tx, service: str, lane_of: Callable[[str], str]) -> int:
    """Give each key's state to the lane that the key has now; how many there were.

    Whoever still believes to own a lane is fenced. Done twice it changes nothing more.
    """
    rows = tx.query(
        "SELECT state_key, seq, body, at_ms FROM lane_states WHERE service = ? ORDER BY seq",
        (service,),
    )
    newest = {key: (service, lane_of(key), key, *rest) for key, *rest in rows}
    tx.execute("DELETE FROM lane_states WHERE service = ?", (service,))
    for row in newest.values():
        tx.execute(
            "INSERT INTO lane_states (service, lane, state_key, seq, body, at_ms)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            row,
        )
    tx.execute("UPDATE lanes SET owner = '', epoch = epoch + 1 WHERE service = ?", (service,))
    return len(newest)


def _refuse_beside_a_bridge(tx: Tx, now_ms: int) -> None:
    """What it sent meanwhile would overtake what is moved."""
    for lease in leases.beginning(tx, leases.BRIDGES):
        if lease.holder and lease.expires_at_ms > now_ms:
            raise TopologyError(
                f"The bridge of {lease.name.removeprefix(leases.BRIDGES)} is at work, and lanes are"
                " about to move; stop `fleet publisher` (the platform keeps five minutes), run"
                " this, start it again."
            )


def _refuse_beside_workers(tx: Tx, service: str, now_ms: int) -> None:
    for each in replicas.every(tx):
        if (each.kind, each.service) == ("worker", service) and each.is_live(now_ms):
            raise TopologyError(
                f"{each.name} is at work, and the keys of {service} are about to get other lanes;"
                f" stop the workers of {service}, and run it again."
            )


_WAIT: Final = (
    "The lanes of {} are being moved; let `fleet topology migrate` come to its end, then start"
    " this again."
)
