"""A process that writes to a store and says what it was told is committed: URL NAME [COUNT]."""

from __future__ import annotations

import asyncio
import itertools
import sys

from fleet.store import KeyState, Settled, lanes, open_store


def rows(name: str, number: int, lane: str, epoch: int) -> list[Settled]:
    """Two rows and a state, which only ever go together."""
    first = f"{name}-{number:06}"
    return [
        Settled("svc", f"{first}-{part}", "done", 1, name, 0, lane=lane, epoch=epoch, states=states)
        for part, states in (("a", (KeyState("count", number, str(number)),)), ("b", ()))
    ]


async def write(url: str, name: str, count: int | None) -> None:
    """Commit one batch after the other and say so each time."""
    store = open_store(url)
    await store.open()
    epoch, _ = await store.run(lambda tx: lanes.take(tx, "svc", name, name))
    for number in range(count) if count is not None else itertools.count():
        verdicts = await store.commit(rows(name, number, name, epoch))
        if verdicts != ["written", "written"]:
            raise SystemExit(f"{name} {number}: {verdicts}")
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
    await store.close()


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None))
