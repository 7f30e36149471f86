"""Whether the store keeps what it is given, how fast, and for how long there is room."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from fleet import clock
from fleet.core.ulid import make_ulid
from fleet.doctor import clocks
from fleet.doctor.finding import Finding
from fleet.store import facts, schema
from fleet.store.api import Store, Tx
from fleet.store.facts import Fact

SLOW_S: Final = 0.1
"""A commit that takes longer lets one worker settle fewer than 2,000 events a second."""
SCARCE_MB: Final = 500
LARGE_WAL_MB: Final = 256
COMMITS: Final = 3
ASKED: Final = ("synchronous_commit", "fsync", "full_page_writes")
LOOKED: Final = "doctor"
"""The fact that says when a doctor wrote last: the commit that is timed."""
_MB: Final = 1 << 20


async def commits(store: Store) -> Finding:
    """How long a durable commit takes, the middle one of three."""
    took = []
    for _ in range(COMMITS):
        now_ms = clock.now_ms()
        fact = Fact(LOOKED, str(now_ms), make_ulid(now_ms, time.monotonic_ns().to_bytes(10, "big")))
        begun = time.perf_counter()
        await store.run(partial(facts.put, fact=fact))
        took.append(time.perf_counter() - begun)
    middle = sorted(took)[COMMITS // 2]
    text = f"A commit of the store takes {middle * 1000:.0f} ms; schema {schema.VERSION}."
    if middle > SLOW_S:
        return Finding("store", "warn", text, "Give the store a faster disk or a nearer server.")
    return Finding("store", "ok", text)


def disk(folder: Path) -> Iterator[Finding]:
    """The room for a SQLite store, and the size of its write-ahead log."""
    free = shutil.disk_usage(folder).free // _MB
    if free < SCARCE_MB:
        text = f"{free} MiB are free where the store is."
        yield Finding("disk", "fail", text, f"Make room on the disk of {folder}.")
    else:
        yield Finding("disk", "ok", f"{free / 1024:.1f} GiB are free where the store is.")
    logs = [each.stat().st_size for each in folder.glob("*-wal")]
    if (size := max(logs, default=0) // _MB) > LARGE_WAL_MB:
        text = f"The store's write-ahead log has {size} MiB: a reader holds it open."
        yield Finding("disk", "warn", text, "End what has been reading the store for long.")


def is_open(tx: Tx) -> bool:
    """Whether what goes to PostgreSQL is not encrypted."""
    return bool(tx.query("SELECT 1 FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND NOT ssl"))


def ask_server(tx: Tx) -> tuple[dict[str, str], float]:
    """PostgreSQL's settings that decide what a crash costs, and its clock."""
    marks = ", ".join("?" * len(ASKED))
    rows = tx.query(f"SELECT name, setting FROM pg_settings WHERE name IN ({marks})", ASKED)  # noqa: S608 - marks only
    ((now_s,),) = tx.query("SELECT EXTRACT(EPOCH FROM clock_timestamp())")
    return dict(rows), float(now_s)


def server(settings: Mapping[str, str], now_s: float, ours_s: float) -> Iterator[Finding]:
    """What PostgreSQL forgets in a crash, and how its clock goes."""
    fix = "Set it to on, in postgresql.conf or for the fleet's user."
    off = [name for name in ASKED if settings.get(name) == "off"]
    for name in off:
        text = f"PostgreSQL has {name} = off: a crash can forget what was done to the world."
        yield Finding("store", "fail", text, fix)
    if not off:
        yield Finding("store", "ok", "PostgreSQL keeps through a crash what it committed.")
    yield clocks.skew("PostgreSQL", now_s - ours_s)
