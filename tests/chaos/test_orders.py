"""kill -9 of the executor at each of its steps: one position each, and the book knows it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from fleet import clock
from fleet.core.events import Event, write_event
from fleet.core.ulid import make_ulid
from fleet.store import effects, open_store, positions
from sandbox.server import Sandbox
from sandbox.settings import SandboxSettings
from topology import names

AGENT = "pf_agent_sandbox"
DEADLINE_S = 240
# Each order's key names the step at which its first worker dies.
STEPS = ("reserved", "called", "answered", "committed")
PAIRS = dict(zip(STEPS, ("A/USD", "B/USD", "C/USD", "D/USD"), strict=True))

# The real service; the deaths are between its own calls.
HANDLERS = """
import asyncio, os, pathlib
from agent.handlers import service
from agent.venue import Venue
from fleet.store.thread import ThreadStore

DEATHS = pathlib.Path(os.environ["DEATHS"])
venue_open, store_commit = Venue.open, ThreadStore.commit


def die_once(key, step):
    mark = DEATHS / key
    if key.startswith(step) and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)


async def open_and_die(self, order):
    die_once(order.key, "reserved")
    asking = asyncio.ensure_future(venue_open(self, order))
    if order.key.startswith("called"):
        await asyncio.sleep(0.25)  # by now it is carried out; nobody reads the answer
        die_once(order.key, "called")
    answer = await asking
    die_once(order.key, "answered")
    return answer


async def commit_and_die(self, settled):
    verdicts = await store_commit(self, settled)
    for entry in settled:
        if entry.effect is not None and entry.outcome:
            die_once(entry.effect.key, "committed")
    return verdicts


Venue.open, ThreadStore.commit = open_and_die, commit_and_die
"""


class Desk:
    """One worker process of the agent, started again whenever it dies."""

    def __init__(self, amqp_url: str, venue_url: str, folder: Path) -> None:
        (folder / "deaths").mkdir()
        (folder / "doomed.py").write_text(HANDLERS)
        self._folder = folder
        self.store_url = f"sqlite:///{folder}/fleet.sqlite3"
        self._env = {
            **os.environ,
            "AMQP_URL": amqp_url,
            "STORE_URL": self.store_url,
            "DEATHS": str(folder / "deaths"),
            "PF_API_URL": venue_url,
            "PF_AGENT_ID": AGENT,
            "PF_AGENT_KEY": "pf_live_sandbox",
            "PF_API_TIMEOUT_S": "5",
            "ORDER_MAX_AGE_S": "3600",
            "PF_PARTITIONS": "1",
            "MAX_POSITIONS": "4",
            "PREFETCH": "1",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.lives = 0

    def run(self, *words: str) -> None:
        """Run a command to its end."""
        subprocess.run(
            [sys.executable, "-m", "fleet", *words],
            env=self._env, cwd=self._folder, check=True, capture_output=True, timeout=120,
        )  # fmt: skip

    async def keep_alive(self) -> None:
        """Have a worker run, for ever."""
        while True:
            if self._process is None or self._process.poll() is not None:
                self._start()
            await asyncio.sleep(0.05)

    def _start(self) -> None:
        self.lives += 1
        with (self._folder / "worker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fleet", "worker", "--handlers", "doomed:service"],
                env={**self._env, "WORKER_NAME": f"w{self.lives}"},
                cwd=self._folder,
                stderr=log,
            )

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """A venue without idempotency: whoever asks twice has two positions."""
    tape = tmp_path / "tape.csv"
    lines = [f"{1_700_000_000_000 + n},{pair},100,1" for n, pair in enumerate(PAIRS.values())]
    tape.write_text("\n".join(["ts_ms,pair,price,qty", *lines]) + "\n")
    plain: dict[str, Any] = {"port": 0, "speed": "max", "script_every": 0, "trades": tape}
    async with Sandbox(SandboxSettings(**plain, idempotency=False)) as started:
        yield started


def wish(step: str) -> Event:
    """An order whose worker dies at this step."""
    now_ms = clock.now_ms()
    payload = {
        "pair": PAIRS[step],
        "direction": "long",
        "size_usdc": Decimal(50),
        "leverage": Decimal(3),
        "timestamp_ms": now_ms,
        "key": f"{step}-{uuid.uuid4().hex}",
    }
    return Event(make_ulid(now_ms, os.urandom(10)), "order.requested", AGENT, payload, now_ms)


async def publish(url: str, events: list[Event]) -> None:
    """Publish, confirmed, as a worker does."""
    connection = await aio_pika.connect(url)
    async with connection, connection.channel(on_return_raises=True) as channel:
        ingest = await channel.get_exchange(names.INGEST, ensure=False)
        for event in events:
            message = aio_pika.Message(write_event(event), headers={"x-event-id": event.event_id})
            await ingest.publish(message, event.type)


async def test_a_worker_killed_at_any_step_leaves_one_position(
    amqp_url: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Between reserve and call, call and answer, answer and commit, commit and ack."""
    desk = Desk(amqp_url, sandbox.url, tmp_path)
    store = open_store(desk.store_url)
    desk.run("topology", "apply", "--handlers", "doomed:service")
    await store.open()
    events = [wish(step) for step in STEPS]
    await publish(amqp_url, events)
    nurse = asyncio.create_task(desk.keep_alive())
    try:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                rows = await store.read(
                    lambda tx: tx.query("SELECT outcome FROM journal WHERE handler = 'on_order'")
                )
                if len(rows) == len(events) and len(list((tmp_path / "deaths").iterdir())) == 4:
                    break
                assert not nurse.done(), nurse.result()
                await asyncio.sleep(0.1)
    finally:
        nurse.cancel()
        with suppress(asyncio.CancelledError):
            await nurse
        desk.stop()
    assert Counter(outcome for (outcome,) in rows) == {"done": 4}
    assert desk.lives == 5, "each step killed one worker"
    book = await store.read(lambda tx: positions.open_positions(tx, AGENT))
    listed = sandbox._venue.positions()
    assert {(one.key, one.venue_id, one.state) for one in book} == {
        (one["idempotency_key"], one["position_id"], "open") for one in listed
    }
    assert len(listed) == 4
    done = await store.read(lambda tx: effects.find(tx, [str(e.payload["key"]) for e in events]))
    assert {one.state for one in done.values()} == {"done"}
    assert sandbox.ledger.summary()["keys_executed_twice"] == 0
    await store.close()
