"""Lanes: who owns one, under which epoch, and the state it keeps for each key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fleet.store.api import KeyState, Settled, Tx


def owners(tx: Tx, service: str, lanes: Iterable[str]) -> dict[str, tuple[str, int]]:
    """The owner and epoch of each of these lanes that was ever taken."""
    found = _owners(tx, {(service, lane) for lane in lanes})
    return {lane: owner for (_, lane), owner in found.items()}


def owned(tx: Tx, service: str, owner: str) -> int:
    """How many lanes `owner` was the last to take."""
    question = "SELECT COUNT(*) FROM lanes WHERE service = ? AND owner = ?"
    return int(tx.query(question, (service, owner))[0][0])


def every(tx: Tx) -> list[tuple[str, str, str]]:
    """Service, name and last owner of each lane that was ever taken."""
    rows = tx.query("SELECT service, lane, owner FROM lanes ORDER BY service, lane")
    return [(service, lane, owner) for service, lane, owner in rows]


def take(tx: Tx, service: str, lane: str, owner: str) -> tuple[int, list[KeyState]]:
    """Make `owner` the lane's owner: the new epoch, and the states its predecessors left.

    From now on whatever was handled under an older epoch is fenced.
    """
    tx.execute(
        "INSERT INTO lanes (service, lane, owner, epoch) VALUES (?, ?, ?, 1)"
        " ON CONFLICT (service, lane) DO UPDATE"
        " SET owner = excluded.owner, epoch = lanes.epoch + 1",
        (service, lane, owner),
    )
    epoch = owners(tx, service, [lane])[lane][1]
    states = tx.query(
        "SELECT state_key, seq, body FROM lane_states WHERE service = ? AND lane = ?"
        " ORDER BY state_key",
        (service, lane),
    )
    return epoch, [KeyState(*state) for state in states]


def fenced(tx: Tx, settled: Sequence[Settled]) -> set[tuple[str, str, int]]:
    """The (service, lane, epoch) among these that are not the lane's epoch any more."""
    stamps = {(entry.service, entry.lane, entry.epoch) for entry in settled if entry.lane}
    if not stamps:
        return set()
    # Kept: whoever takes the lane from now on waits until this is committed, and then finds it.
    current = _owners(tx, {(service, lane) for service, lane, _ in stamps}, keep="lanes")
    return {stamp for stamp in stamps if current.get(stamp[:2], ("", 0))[1] != stamp[2]}


def save(tx: Tx, settled: Iterable[Settled]) -> None:
    """Write the last state of each key; one that is older than what is there is left out."""
    last: dict[tuple[str, str, str], tuple[int, str, int]] = {}
    for entry in settled:
        for state in entry.states:
            at = (entry.service, entry.lane, state.key)
            if at not in last or last[at][0] <= state.seq:
                body = state.body if isinstance(state.body, str) else state.body.decode()
                last[at] = (state.seq, body, entry.at_ms)
    if last:
        tx.bulk(_STATE, [at + state for at, state in last.items()], _SAVE)


def touched_ms(tx: Tx, service: str) -> int:
    """When the state of any key was last written; 0 where none ever was."""
    rows = tx.query("SELECT coalesce(max(at_ms), 0) FROM lane_states WHERE service = ?", (service,))
    return int(rows[0][0])


def state_of(tx: Tx, service: str, key: str) -> KeyState | None:
    """The last written state of one key, in whichever lane."""
    rows = tx.query(
        "SELECT state_key, seq, body FROM lane_states WHERE service = ? AND state_key = ?"
        " ORDER BY at_ms DESC LIMIT 1",
        (service, key),
    )
    return KeyState(*rows[0]) if rows else None


_STATE = ("service", "lane", "state_key", "seq", "body", "at_ms")
_SAVE = (
    "INSERT INTO lane_states (service, lane, state_key, seq, body, at_ms)"
    " SELECT service, lane, state_key, seq, body, at_ms FROM rows WHERE true"
    " ON CONFLICT (service, lane, state_key) DO UPDATE"
    " SET seq = excluded.seq, body = excluded.body, at_ms = excluded.at_ms"
    " WHERE excluded.seq >= lane_states.seq"
)


def _owners(
    tx: Tx, lanes: Iterable[tuple[str, str]], keep: str = ""
) -> dict[tuple[str, str], tuple[str, int]]:
    found = tx.lookup(
        ("service", "lane"),
        list(lanes),
        "SELECT lanes.service, lanes.lane, lanes.owner, lanes.epoch"
        " FROM rows CROSS JOIN lanes WHERE lanes.service = rows.service AND lanes.lane = rows.lane",
        ("service", "lane", "owner", "epoch"),
        keep,
    )
    return {(service, lane): (owner, epoch) for service, lane, owner, epoch in found}
