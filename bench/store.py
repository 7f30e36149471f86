"""`python -m bench.store --json`: journal rows a second, beside an idle and a busy event loop."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from fleet.core.ulid import make_ulid
from fleet.store import Candidate, Claim, EffectResult, KeyState, Settled, Store, open_store
from fleet.store import lanes as lane_rows

Step: TypeAlias = Callable[[Store, Sequence[str], int], Awaitable[None]]
SERVICE = "bench"


class BusyLoop:
    """Keeps the event loop's thread in Python code, as a worker under full load does."""

    def __init__(self, slice_s: float) -> None:
        self._slice_s = slice_s
        self._on = True

    def start(self) -> None:
        """Burn from now on."""
        asyncio.get_running_loop().call_soon(self._burn)

    def stop(self) -> None:
        """Burn no longer."""
        self._on = False

    def _burn(self) -> None:
        end = time.perf_counter() + self._slice_s
        while time.perf_counter() < end:
            pass
        if self._on:
            asyncio.get_running_loop().call_soon(self._burn)


async def plain(store: Store, ids: Sequence[str], _epoch: int) -> None:
    """Journal rows and nothing else."""
    await store.commit([_settled(event_id) for event_id in ids])


async def ticks(store: Store, ids: Sequence[str], epoch: int) -> None:
    """What a lane does: look up, then journal rows with a fence and a state."""
    await store.admit([Candidate(SERVICE, event_id) for event_id in ids], 0)
    state = (KeyState("BTC", 1, "[]"),)
    await store.commit(
        [_settled(event_id, lane="0", epoch=epoch, states=state) for event_id in ids]
    )


async def once(store: Store, ids: Sequence[str], _epoch: int) -> None:
    """What an effect does: reserve its key, then result and journal row."""
    claims = [Claim(event_id, "trade", event_id, 60_000) for event_id in ids]
    candidates = [
        Candidate(SERVICE, event_id, 0, claim) for event_id, claim in zip(ids, claims, strict=True)
    ]
    await store.admit(candidates, 0)
    await store.commit(
        [_settled(event_id, effect=EffectResult(event_id, "done", "{}")) for event_id in ids]
    )


KINDS: dict[str, Step] = {"plain": plain, "ticks": ticks, "once": once}


def _settled(event_id: str, **more: object) -> Settled:
    return Settled(SERVICE, event_id, "done", 1, "worker-1", 0, "bench.handler", **more)  # type: ignore[arg-type]  # named above, each with its own type


async def measure(
    kind: str, batch: int, busy_ms: float, seconds: float, url: str
) -> dict[str, object]:
    """Rows a second and the slowest batches of one kind of work; in a fresh file without `url`."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(url or f"sqlite:///{Path(folder) / 'bench.sqlite3'}")
        await store.open()
        epoch, _ = await store.run(lambda tx: lane_rows.take(tx, SERVICE, "0", "worker-1"))
        loop = BusyLoop(busy_ms / 1000)
        if busy_ms:
            loop.start()
        times = await _batches(store, kind, batch, epoch, seconds)
        loop.stop()
        await store.close()
    times.sort()
    return {
        "kind": kind,
        "batch": batch,
        "busy_ms": busy_ms,
        "rows_per_s": round(batch * len(times) / sum(times)),
        "batch_ms": {
            "p50": round(times[len(times) // 2] * 1000, 2),
            "p99": round(times[len(times) * 99 // 100] * 1000, 2),
            "max": round(times[-1] * 1000, 2),
        },
    }


async def _batches(store: Store, kind: str, batch: int, epoch: int, seconds: float) -> list[float]:
    times: list[float] = []
    run = os.urandom(10)  # a database may have the rows of another run
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        first = batch * len(times)
        ids = [make_ulid(first + i, run) for i in range(batch)]
        start = time.perf_counter()
        await KINDS[kind](store, ids, epoch)
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Measure every combination and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 50, 200])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--busy-ms", type=float, nargs="+", default=[0, 0.2], metavar="MS")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each combination")
    parser.add_argument("--store", default="", help="a PostgreSQL URL; else a new SQLite file")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = [
        asyncio.run(measure(kind, batch, busy_ms, args.seconds, args.store))
        for kind in args.kinds
        for batch in args.batches
        for busy_ms in args.busy_ms
    ]
    if args.json:
        print(json.dumps(results))
        return
    for result in results:
        print(" ".join(f"{name}={value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
