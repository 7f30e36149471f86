"""What operators, and failures that repeat, withhold from the workers."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fleet.core.errors import SettingsError
from fleet.store import archive
from fleet.store.api import Tx
from fleet.store.archive import Intervention

ALL: Final = "*"


class Pause(msgspec.Struct, frozen=True, gc=False):
    """Nothing of this event type (a pattern) is begun in this service; `*` is every one."""

    service: str
    pattern: str
    note: str
    operator: str
    at_ms: int


class Halt(msgspec.Struct, frozen=True, gc=False):
    """A handler that failed in the same way again and again; an operator releases it.

    `told`: the alert about it went out. `agent` and `reason` are those of the last event that
    failed.
    """

    service: str
    handler: str
    fingerprint: str
    reason: str
    worker: str
    agent: str
    at_ms: int
    told: bool = False


class Controls(msgspec.Struct, frozen=True, gc=False):
    """What is withheld from a service now."""

    pauses: tuple[Pause, ...] = ()
    halts: tuple[Halt, ...] = ()


def of(tx: Tx, service: str) -> Controls:
    """What is withheld from a service."""
    pauses = tx.query(f"{_PAUSES} WHERE service IN (?, ?) ORDER BY at_ms", (service, ALL))
    halts = tx.query(f"{_HALTS} WHERE service = ? ORDER BY at_ms", (service,))
    return _controls(pauses, halts)


def every(tx: Tx) -> Controls:
    """All that is withheld, oldest first."""
    return _controls(tx.query(f"{_PAUSES} ORDER BY at_ms"), tx.query(f"{_HALTS} ORDER BY at_ms"))


def pause(tx: Tx, pause: Pause) -> bool:
    """Withhold it; False where it was withheld already: then at most the note is new."""
    is_new = not tx.query(
        "SELECT 1 FROM pauses WHERE service = ? AND pattern = ?", (pause.service, pause.pattern)
    )
    tx.execute(
        f"INSERT INTO pauses ({_PAUSE}) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (service, pattern) DO UPDATE"
        " SET note = excluded.note, operator = excluded.operator WHERE excluded.note <> ''",
        msgspec.structs.astuple(pause),
    )
    archive.note(tx, [_paused(pause)])
    return is_new


def resume(
    tx: Tx, pauses: tuple[Pause, ...], *, operator: str, note: str, now_ms: int
) -> tuple[Pause, ...]:
    """Withhold these no longer; those that were lifted by this call."""
    lifted = tuple(
        each
        for each in pauses
        if tx.execute(
            "DELETE FROM pauses WHERE service = ? AND pattern = ?", (each.service, each.pattern)
        )
    )
    archive.note(tx, [_resumed(each, operator, note, now_ms) for each in lifted])
    return lifted


def halt(tx: Tx, halt: Halt) -> bool:
    """Halt a handler; False where it is halted already."""
    changed = tx.execute(
        f"INSERT INTO halts ({_HALT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (service, handler) DO NOTHING",
        (*msgspec.structs.astuple(halt)[:-1], int(halt.told)),
    )
    return changed == 1


def told(tx: Tx, halt: Halt) -> None:
    """Note that the alert about a halt went out."""
    tx.execute(
        "UPDATE halts SET told = 1 WHERE service = ? AND handler = ? AND at_ms = ?",
        (halt.service, halt.handler, halt.at_ms),
    )


def release(tx: Tx, service: str, handler: str, *, operator: str, note: str, now_ms: int) -> Halt:
    """Let a halted handler work again; the halt that was lifted.

    Raises SettingsError where it is not halted.
    """
    found = [each for each in of(tx, service).halts if each.handler == handler]
    if not found:
        raise SettingsError(f"The handler {handler} of {service} is not halted.")
    tx.execute("DELETE FROM halts WHERE service = ? AND handler = ?", (service, handler))
    done = Intervention(now_ms, operator, "release", service, handler, "halted", "running", note)
    archive.note(tx, [done])
    return found[0]


_PAUSE: Final = ", ".join(Pause.__struct_fields__)
_HALT: Final = ", ".join(Halt.__struct_fields__)
_PAUSES: Final = f"SELECT {_PAUSE} FROM pauses"
_HALTS: Final = f"SELECT {_HALT} FROM halts"


def _controls(pauses: list[tuple[Any, ...]], halts: list[tuple[Any, ...]]) -> Controls:
    found = (dict(zip(Halt.__struct_fields__, row, strict=True)) for row in halts)
    return Controls(
        tuple(Pause(*row) for row in pauses),
        tuple(Halt(**{**each, "told": bool(each["told"])}) for each in found),
    )


def _paused(pause: Pause) -> Intervention:
    was, is_now = "running", "paused"
    return Intervention(
        pause.at_ms, pause.operator, "pause", pause.service, pause.pattern, was, is_now, pause.note
    )


def _resumed(pause: Pause, operator: str, note: str, now_ms: int) -> Intervention:
    was, is_now = "paused", "running"
    return Intervention(now_ms, operator, "resume", pause.service, pause.pattern, was, is_now, note)
