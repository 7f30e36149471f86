"""Replicas that race for the same book: never too many positions, never two for a pair."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fleet.store import Store, positions

ROOT = Path(__file__).parents[3]


async def replica(floor: SimpleNamespace, *arguments: str) -> str:
    """One replica in a process of its own, to its end; what it said."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(floor.PATH),
        *arguments,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, errors = await asyncio.wait_for(child.communicate(), 300)
    assert child.returncode == 0, errors.decode()
    return said.decode()


def most_at_once(effects: list[Any]) -> tuple[int, int]:
    """The most positions that were open at the venue at once, in all and of one pair."""
    pair_of = {one.position_id: one.pair for one in effects if one.kind == "open"}
    open_now: Counter[str] = Counter()
    highest, of_a_pair = 0, 0
    for one in effects:
        open_now[pair_of[one.position_id]] += 1 if one.kind == "open" else -1
        highest = max(highest, open_now.total())
        of_a_pair = max(of_a_pair, *open_now.values())
    return highest, of_a_pair


async def test_three_processes_never_open_a_fourth_position(
    floor: SimpleNamespace, sandbox: Any, store: Store, store_url: str, desk: Any
) -> None:
    """Six pairs, both ways, four minutes, lost answers and errors: the ledger is the witness."""
    venue = await sandbox(faults="errors=0.05,lost_answers=0.1", seed=3)
    start = str(floor.now() // 60_000 * 60_000)
    pairs = ",".join(floor.PAIRS)
    names = ("a", "bb", "c")
    said = await asyncio.gather(
        *(replica(floor, venue.url, store_url, name, pairs, start) for name in names)
    )
    assert all("Ack" in one for one in said)
    effects = venue.ledger._effects
    assert most_at_once(effects) <= (3, 1)
    assert venue.ledger.summary()["keys_executed_twice"] == 0
    open_now = {one.pair: one.direction for one in await (await desk(venue.url)).venue.positions()}
    book = await store.read(lambda tx: positions.open_positions(tx, "pf_agent_sandbox"))
    sure = {one.pair: one.direction for one in book if one.state == "open"}
    assert sure.items() <= open_now.items(), "what the book calls open is open"
    assert open_now.keys() <= {one.pair for one in book}, "what is open has its place in the book"


async def test_one_order_on_three_replicas_at_once_is_one_position(
    floor: SimpleNamespace, sandbox: Any, desk: Any
) -> None:
    """Twins of one event and of one key, handled at the same moment, without a venue's help."""
    venue = await sandbox(idempotency=False, faults="latency=50ms")
    here = await desk(venue.url)
    runners = [floor.Runner(here, name) for name in ("a", "b", "c")]
    wish = floor.order("BTC/USDT", "long", floor.now())
    twins = [floor.event_of(wish)] * 2 + [floor.event_of(wish)]
    await asyncio.gather(
        *(runner.until_done(event) for runner, event in zip(runners, twins, strict=True))
    )
    assert venue.ledger.summary()["opened"] == 1
    assert len(await here.venue.positions()) == 1
