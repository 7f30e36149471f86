"""What the store knows of one event or one key, wherever it is written."""

from __future__ import annotations

import msgspec

from fleet.store.api import BRIDGE, Tx


class Row(msgspec.Struct, frozen=True, gc=False):
    """What became of an event in one service, as the journal has it."""

    service: str
    outcome: str
    attempt: int
    worker: str
    handler: str
    reason: str
    replay_count: int
    at_ms: int
    age_ms: int


_LIST = ", ".join(Row.__struct_fields__)


def journal(tx: Tx, event_id: str) -> list[Row]:
    """The row of each service for an event, earliest first; a shed one is the bridge's."""
    # By service, so that each look-up goes by the table's key.
    services = [name for (name,) in tx.query("SELECT DISTINCT service FROM bindings")]
    rows = [
        Row(*row)
        for service in dict.fromkeys([*services, BRIDGE])
        for row in tx.query(
            f"SELECT {_LIST} FROM journal WHERE service = ? AND event_id = ?", (service, event_id)
        )
    ]
    return sorted(rows, key=lambda row: row.at_ms)
