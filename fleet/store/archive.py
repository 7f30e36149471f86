"""What operators took out of a queue, with its body, and what they did: all of it has a row."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from fleet.store.api import Tx

Kind: TypeAlias = Literal["resolved", "edited"]
PAGE: Final = 500
EFFECTS: Final = "effects"
"""Stands for the queue where an operator's word is about an effect."""
ALERTS: Final = "alerts"
"""Likewise, where it is about an alert."""


class Archived(msgspec.Struct, frozen=True, gc=False):
    """A message as it stood in `queue` when `operator` resolved it, or sent another in its place.

    `restored_ms` is when it was brought back; 0: it was not.
    """

    kind: Kind
    queue: str
    message_id: str
    digest: str
    replays: int
    event_type: str
    headers: dict[str, Any]
    body: bytes
    note: str
    operator: str
    at_ms: int
    restored_ms: int = 0


class Intervention(msgspec.Struct, frozen=True, gc=False):
    """Something that an operator did; `before` and `after` are digests or states."""

    at_ms: int
    operator: str
    action: str
    queue: str
    message_id: str
    before: str = ""
    after: str = ""
    note: str = ""


_COLUMNS = Archived.__struct_fields__
_LIST = ", ".join(_COLUMNS)
_KEY = "kind, queue, message_id, digest, replays"
# The same message in the same state again is a resolve that was killed before its ack, or one
# that follows a restore: one row stands for both.
_ADD = (
    f"INSERT INTO archive ({_LIST}) SELECT {_LIST} FROM rows WHERE true"
    f" ON CONFLICT ({_KEY}) DO UPDATE SET headers = excluded.headers, note = excluded.note,"
    " operator = excluded.operator, at_ms = excluded.at_ms, restored_ms = 0"
)
_RESTORED = (
    "UPDATE archive SET restored_ms = ? WHERE kind = ? AND queue = ? AND message_id = ?"
    " AND digest = ? AND replays = ?"
)
_WAITS = (
    "outcome = 'failed' AND NOT EXISTS (SELECT 1 FROM archive WHERE kind = 'resolved'"
    " AND message_id = journal.event_id AND restored_ms = 0)"
)
_DONE_COLUMNS = Intervention.__struct_fields__
_DONE_NAMES = {"before": "was", "after": "became"}
_DONE_LIST = ", ".join(_DONE_NAMES.get(name, name) for name in _DONE_COLUMNS)


def add(tx: Tx, entries: Sequence[Archived]) -> None:
    """Keep these; one that is there already in the same state is there once."""
    last = {_key(entry): entry for entry in entries}
    tx.bulk(_COLUMNS, [_row(entry) for entry in last.values()], _ADD)


def find(
    tx: Tx, *, ids: Iterable[str] = (), kind: Kind = "resolved", limit: int = PAGE, skip: int = 0
) -> list[Archived]:
    """What is archived and not restored, newest first; of these ids, or of any."""
    wanted = list(ids)
    where = f" AND message_id IN ({', '.join('?' * len(wanted))})" if wanted else ""
    rows = tx.query(
        f"SELECT {_LIST} FROM archive WHERE kind = ? AND restored_ms = 0{where}"
        " ORDER BY at_ms DESC, message_id LIMIT ? OFFSET ?",
        (kind, *wanted, limit, skip),
    )
    return [_archived(row) for row in rows]


def resolved_ids(tx: Tx, queue: str) -> list[str]:
    """The ids of what was resolved out of a queue and not brought back."""
    rows = tx.query(
        "SELECT DISTINCT message_id FROM archive"
        " WHERE kind = 'resolved' AND restored_ms = 0 AND queue = ?",
        (queue,),
    )
    return [message_id for (message_id,) in rows]


def counts(tx: Tx) -> dict[str, int]:
    """How many messages were resolved out of each queue and not brought back."""
    sql = (
        "SELECT queue, count(*) FROM archive WHERE kind = 'resolved' AND restored_ms = 0"
        " GROUP BY queue ORDER BY queue"
    )
    return dict(tx.query(sql))


def restored(tx: Tx, entry: Archived, now_ms: int) -> None:
    """Note that it is back in its queue."""
    key = (entry.kind, entry.queue, entry.message_id, entry.digest, entry.replays)
    tx.execute(_RESTORED, (now_ms, *key))


def oldest_failed(tx: Tx, service: str) -> int:
    """When the oldest journalled failure that nobody resolved was; 0 where there is none."""
    rows = tx.query(
        f"SELECT coalesce(min(at_ms), 0) FROM journal WHERE service = ? AND {_WAITS}",
        (service,),
    )
    return int(rows[0][0])


def failed_lately(tx: Tx, service: str, limit: int = PAGE) -> list[tuple[str, str, int]]:
    """Handler, reason and time of the newest journalled failures that nobody resolved."""
    rows = tx.query(
        f"SELECT handler, reason, at_ms FROM journal WHERE service = ? AND {_WAITS}"
        " ORDER BY at_ms DESC LIMIT ?",
        (service, limit),
    )
    return [(handler, reason, at_ms) for handler, reason, at_ms in rows]


def note(tx: Tx, done: Sequence[Intervention]) -> None:
    """Write down what an operator did."""
    tx.bulk(
        tuple(_DONE_NAMES.get(name, name) for name in _DONE_COLUMNS),
        [msgspec.structs.astuple(each) for each in done],
        f"INSERT INTO interventions ({_DONE_LIST}) SELECT {_DONE_LIST} FROM rows WHERE true",
    )


def interventions(tx: Tx, message_id: str = "", limit: int = PAGE) -> list[Intervention]:
    """What was done, newest first; to one message, or to any."""
    where, params = (" WHERE message_id = ?", (message_id,)) if message_id else ("", ())
    rows = tx.query(
        f"SELECT {_DONE_LIST} FROM interventions{where} ORDER BY id DESC LIMIT ?", (*params, limit)
    )
    return [Intervention(*row) for row in rows]


def last_words(
    tx: Tx, ids: Iterable[str], queue: Literal["effects", "alerts"] = EFFECTS
) -> dict[str, Intervention]:
    """The last thing an operator said of each of these effects, or alerts, that have any."""
    columns = ("message_id",)
    answer = ("id", *(_DONE_NAMES.get(name, name) for name in _DONE_COLUMNS))
    found = tx.lookup(
        columns,
        [(each,) for each in ids],
        f"SELECT {', '.join(f'interventions.{name}' for name in answer)}"
        " FROM rows CROSS JOIN interventions WHERE interventions.message_id = rows.message_id"
        f" AND interventions.queue = '{queue}'",
        answer,
    )
    words = (Intervention(*row) for _, *row in sorted(found))
    return {word.message_id: word for word in words}


def plain(headers: Any) -> Any:
    """Headers as JSON can hold them; what it cannot (bytes, times) becomes text."""
    return msgspec.to_builtins(headers, enc_hook=str, str_keys=True)


def _key(entry: Archived) -> tuple[str, str, str, str, int]:
    return entry.kind, entry.queue, entry.message_id, entry.digest, entry.replays


def _row(entry: Archived) -> tuple[str | int, ...]:
    fields = msgspec.structs.asdict(entry)
    fields["headers"] = msgspec.json.encode(plain(entry.headers)).decode()
    # As text: what goes through a relation of rows has no bytes, and a person can still read it.
    fields["body"] = base64.b64encode(entry.body).decode()
    return tuple(fields.values())


def _archived(row: Sequence[Any]) -> Archived:
    fields = dict(zip(_COLUMNS, row, strict=True))
    fields["headers"] = msgspec.json.decode(fields["headers"])
    fields["body"] = base64.b64decode(fields["body"])
    return Archived(**fields)
