"""A batch of deliveries, before and after their handlers: a handful of statements each."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.store import effects, journal, lanes
from fleet.store.again import OvertakenError
from fleet.store.api import Candidate, Settled, Standing, Tx, Verdict


def admit(tx: Tx, candidates: Sequence[Candidate], now_ms: int) -> list[Standing]:
    """The standing of each candidate, in order; claims of those not seen are reserved."""
    seen = journal.seen(tx, candidates)
    unseen = [new for new, outcome in zip(candidates, seen, strict=True) if outcome is None]
    claimed = iter(effects.claim(tx, unseen, now_ms))
    if not tx.alone and any(journal.seen(tx, [new for new in unseen if new.effect])):
        # Its holder ended it between the two looks: what was claimed is not to be had.
        raise OvertakenError
    return [next(claimed) if outcome is None else Standing(seen=outcome) for outcome in seen]


def standings(tx: Tx, candidates: Sequence[Candidate]) -> list[Standing]:
    """The standing of candidates that claim nothing: one look-up, nothing written."""
    return [Standing(seen=outcome) for outcome in journal.seen(tx, candidates)]


def is_plain(settled: Sequence[Settled]) -> bool:
    """Whether these are journal rows of different events and nothing else."""
    return all(map(_plain, settled)) and len(set(map(_key, settled))) == len(settled)


def commit_plain(tx: Tx, settled: Sequence[Settled]) -> list[Verdict] | None:
    """Journal plain entries in one statement; None, and nothing written, where one has a row."""
    return ["written"] * len(settled) if journal.insert_new(tx, settled) else None


def commit(tx: Tx, settled: Sequence[Settled]) -> list[Verdict]:
    """Write what was handled; each entry's verdict, in order."""
    fenced = lanes.fenced(tx, settled)
    ends = [entry for entry in settled if entry.outcome and _stamp(entry) not in fenced]
    all_new = _insert_new(tx, ends)
    rows = {} if all_new else journal.rows_of(tx, map(_key, ends))
    verdicts: dict[int, Verdict] = {}
    fresh: dict[journal.Key, Settled] = {}
    for index in sorted(range(len(settled)), key=lambda index: settled[index].event_id):
        entry = settled[index]
        if _stamp(entry) in fenced:
            verdicts[index] = "fenced"
        elif entry.outcome and not journal.admissible(rows, entry):
            verdicts[index] = "twin"
        else:
            verdicts[index] = verdict = _written(tx, entry)
            if verdict == "written" and entry.outcome:
                fresh[_key(entry)] = entry
                rows[_key(entry)] = (entry.outcome, entry.replay_count)
    ordered = [verdicts[index] for index in range(len(settled))]
    if not all_new:
        journal.upsert(tx, fresh)
    _write_beside(tx, settled, ordered)
    return ordered


def _insert_new(tx: Tx, ends: Sequence[Settled]) -> bool:
    """Whether all of these are journalled already, as none of them had a row: the usual case."""
    distinct = len(set(map(_key, ends))) == len(ends)
    return distinct and not any(end.writes for end in ends) and journal.insert_new(tx, ends)


def _key(entry: Settled) -> journal.Key:
    return entry.service, entry.event_id


def _stamp(entry: Settled) -> tuple[str, str, int]:
    return entry.service, entry.lane, entry.epoch


def _plain(entry: Settled) -> bool:
    return bool(entry.outcome) and not (
        entry.writes or entry.states or entry.effect or entry.lane or entry.started
    )


def _written(tx: Tx, entry: Settled) -> Verdict:
    if not entry.writes:
        return "written"
    try:
        with tx.savepoint():
            for write in entry.writes:
                write(tx)
    except Exception as error:  # noqa: BLE001 - it is the verdict, and its caller's to judge
        return error
    return "written"


def _write_beside(tx: Tx, settled: Sequence[Settled], verdicts: Sequence[Verdict]) -> None:
    judged = list(zip(settled, verdicts, strict=True))
    lanes.save(tx, (entry for entry, verdict in judged if verdict == "written"))
    # What the venue answered stays true, whoever journals the event and whatever failed since.
    effects.settle(
        tx,
        ((entry.effect, entry.at_ms) for entry, v in judged if entry.effect and v != "fenced"),
    )
    journal.forget_starts(
        tx,
        (entry for entry, v in judged if entry.started and v in _FINAL),
    )


_FINAL = ("written", "twin")
