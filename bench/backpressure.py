"""How much memory the bridge takes while the broker is away and the platform does not wait."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from fleet.amqp.admin import Admin
from fleet.broker import BrokerSettings, RunningBroker
from fleet.broker.choose import private
from fleet.store import bridge, open_store
from sandbox.settings import DEMO_KEY
from topology.apply import apply
from topology.plan import plan

AGENT = "pf_agent_sandbox"
LOOK_S = 0.5


def run(*, events: int, away_s: float, kind: Literal["docker", "local"] | None) -> dict[str, Any]:
    """The bridge's resident memory before, while and after the broker is away, in MiB."""
    with tempfile.TemporaryDirectory() as folder, private(BrokerSettings(), kind=kind) as broker:
        asyncio.run(_lay_out(broker.amqp_url))
        broker.restart()  # writes down the stream that was just declared
        with _sandbox(events) as url, _bridge(url, broker, Path(folder)) as process:
            before = _watch(process, lambda: _published(Path(folder)) > events // 20)
            figures = _measure(broker, process, url, Path(folder), away_s)
            return {"away_s": away_s, "rss_before_mib": max(before), **figures}


def _measure(
    broker: RunningBroker,
    process: subprocess.Popen[bytes],
    url: str,
    folder: Path,
    away_s: float,
) -> dict[str, Any]:
    broker.kill()
    end = time.monotonic() + away_s
    away = _watch(process, lambda: time.monotonic() > end)
    emitted = _summary(url)["emitted"]
    broker.restart()
    after = _watch(process, lambda: _published(folder) >= _summary(url)["emitted"])
    return {
        "rss_away_first_mib": away[0],
        "rss_away_last_mib": away[-1],
        "rss_away_max_mib": max(away),
        "rss_after_max_mib": max(after),
        "emitted_when_it_came_back": emitted,
        "emitted": _summary(url)["emitted"],
        "published": _published(folder),
    }


def _watch(process: subprocess.Popen[bytes], until: Any) -> list[float]:
    """The process's resident memory, in MiB, every half second until it is so."""
    found = [_rss(process.pid)]
    while not until():
        time.sleep(LOOK_S)
        found.append(_rss(process.pid))
    return found


def _rss(pid: int) -> float:
    told = subprocess.run(  # noqa: S603 - a number and nothing else
        ["ps", "-o", "rss=", "-p", str(pid)],  # noqa: S607 - every system has it on its PATH
        check=True,
        capture_output=True,
    )
    return round(int(told.stdout) / 1024, 1)


def _published(folder: Path) -> int:
    async def look() -> int:
        store = open_store(_store(folder))
        await store.open()
        try:
            counts = await store.read(lambda tx: bridge.counts(tx, f"stream:{AGENT}"))
        finally:
            await store.close()
        return counts.get("published", 0)

    return asyncio.run(look())


def _store(folder: Path) -> str:
    return f"sqlite:///{folder / 'store.sqlite3'}"


async def _lay_out(amqp_url: str) -> None:
    async with await Admin.open(amqp_url) as admin:
        await apply(plan([]), admin)


def _summary(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/sandbox/summary", timeout=10) as answer:  # noqa: S310 - ours
        found: dict[str, Any] = json.load(answer)
    return found


@contextlib.contextmanager
def _sandbox(events: int) -> Iterator[str]:
    options = ["--port", "0", "--speed", "max", "--wait", "--events", str(events)]
    command = [sys.executable, "-m", "fleet", "sandbox", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
        try:
            line = process.stdout.readline() if process.stdout else ""
            yield re.findall(r"http://\S+", line)[0]
        finally:
            process.terminate()


@contextlib.contextmanager
def _bridge(url: str, broker: RunningBroker, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        "PATH": os.defpath,
        "AMQP_URL": broker.amqp_url,
        "STORE_URL": _store(folder),
        "PF_STREAM_URL": url.replace("http", "ws", 1) + "/api/stream",
        "PF_AGENT_ID": AGENT,
        "PF_AGENT_KEY": DEMO_KEY,
    }
    command = [sys.executable, "-m", "fleet", "publisher"]
    with subprocess.Popen(command, env=environment) as process:  # noqa: S603 - ours
        try:
            yield process
        finally:
            process.terminate()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.backpressure", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--away-s", type=float, default=20.0)
    parser.add_argument("--kind", choices=("docker", "local"))
    print(json.dumps(run(**vars(parser.parse_args())), indent=2))


if __name__ == "__main__":
    main()
