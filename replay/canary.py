"""A replay in growing steps, each of which waits for what became of the one before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from fleet.store import journal
from fleet.store.api import Tx
from fleet.store.journal import Key, Row
from replay.place import Place
from replay.plan import Item, Plan, cohorts
from replay.run import Runner

POLL_S: Final = 0.2


async def run_in_steps(
    runner: Runner,
    place: Place,
    plan: Plan,
    *,
    ratio: float,
    wait_s: float,
    stop: asyncio.Event,
) -> None:
    """Send 1, then 5, then 5 %, then the rest, while at most `ratio` of a step fails again.

    Stops also where a step has no outcome after `wait_s`: no worker runs, or it is retried for
    long.
    """
    items = plan.sent
    for number, step in enumerate(cohorts(items), 1):
        await runner.run(step)
        if stop.is_set() or runner.report.stopped:
            return
        failed, waiting = await _outcome(place, runner, step, wait_s, stop)
        if waiting:
            runner.report.stopped = f"step {number}: {waiting} have no outcome after {wait_s:g} s"
            return
        if failed > ratio * len(step):
            runner.report.stopped = f"step {number}: {failed} of {len(step)} failed again"
            return


async def _outcome(
    place: Place, runner: Runner, step: Sequence[Item], wait_s: float, stop: asyncio.Event
) -> tuple[int, int]:
    """How many of a step failed again, and how many have no outcome yet."""
    kept = {*runner.report.refused, *runner.report.left}
    asked = [item for item in step if item.outcome == "run" and item.id not in kept]
    keys = [(place.service.name, item.id) for item in asked]

    def look(tx: Tx) -> dict[Key, Row]:
        return journal.rows_of(tx, keys)

    deadline = time.monotonic() + wait_s
    while True:
        rows = await place.store.read(look)
        ended = {
            item.id: rows[key][0]
            for item, key in zip(asked, keys, strict=True)
            if key in rows and _is_later(rows[key], item)
        }
        failed = sum(outcome in ("failed", "expired") for outcome in ended.values())
        waiting = sum(item.id not in ended and _leaves_a_row(place, item) for item in asked)
        if not waiting or stop.is_set() or time.monotonic() > deadline:
            return failed, 0 if stop.is_set() else waiting
        await asyncio.sleep(POLL_S)


def _is_later(row: Row, item: Item) -> bool:
    return row[0] in ("done", "skipped") or row[1] > item.replays


def _leaves_a_row(place: Place, item: Item) -> bool:
    return place.service.find(item.type) is not None  # unrouted ones may go to another service
