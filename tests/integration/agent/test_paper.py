"""`fleet worker --paper` on a broker, behind the bridge and the stand-in's own stream."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from fleet import clock
from fleet.core.events import Event, write_event
from fleet.core.ulid import make_ulid
from fleet.store import Store, effects, positions
from sandbox.server import Sandbox
from sandbox.settings import SandboxSettings
from tests.waiting import until
from topology import names

AGENT, BOOK = "pf_agent_sandbox", "pf_agent_sandbox/paper"
BTC, ETH, START_MS = "BTC/USDT", "ETH/USDT", 1_700_000_040_000
STOP_S = 60


class Fleet:
    """The commands of a fleet, over one store and one virtual host, each a process."""

    def __init__(self, amqp_url: str, store_url: str, venue_url: str, folder: Path) -> None:
        self._folder = folder
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PF_")},
            "AMQP_URL": amqp_url,
            "STORE_URL": store_url,
            "PF_API_URL": venue_url,
            "PF_STREAM_URL": f"ws{venue_url.removeprefix('http')}/api/stream",
            "PF_AGENT_ID": AGENT,
            "PF_AGENT_KEY": "pf_live_sandbox",
            "PF_PARTITIONS": "1",
            # Its prices stand still while commands start, however long that takes here.
            "MAX_FEED_AGE_S": "3600",
        }

    async def say(self, *words: str) -> Any:
        """Run a command to its end; its JSON where that is asked for."""
        done = await asyncio.to_thread(
            subprocess.run,
            self._argv(words), env=self._env, cwd=self._folder,
            check=False, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout) if "--json" in words else done.stdout

    @contextmanager
    def running(self, *words: str) -> Iterator[None]:
        """Have a command run meanwhile; it drains at the end, and no traceback was logged."""
        path = self._folder / f"{'-'.join(words)}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                self._argv(words), env=self._env, cwd=self._folder, stdout=log, stderr=log
            )
        try:
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait(STOP_S) == 0, path.read_text()
        finally:
            process.kill()
            process.wait()
        assert "Traceback" not in path.read_text()

    @staticmethod
    def _argv(words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "fleet", *words]


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """A stand-in whose market rises once somebody listens."""
    tape = tmp_path / "tape.csv"
    record(tape, START_MS, [1000] * 19 + [1010])
    plain: dict[str, Any] = {"port": 0, "speed": "max", "script_every": 0, "wait": True}
    async with Sandbox(SandboxSettings(**plain, trades=tape)) as started:
        yield started


def record(tape: Path, start_ms: int, prices: list[int]) -> None:
    """Write a tape of one market, beside another that stands still."""
    lines = [f"{start_ms + n * 100},{BTC},{price},1" for n, price in enumerate(prices)]
    head = ["ts_ms,pair,price,qty", f"{start_ms},{ETH},500,1"]
    tape.write_text("\n".join([*head, *lines]) + "\n")


def go_on(venue: Sandbox, prices: list[int]) -> None:
    """The market goes on in the next minute, to whoever is connected."""
    assert venue.settings.trades is not None
    record(venue.settings.trades, START_MS + 60_000, prices)
    venue._playing = None
    venue.begin()


async def order(amqp_url: str, pair: str) -> str:
    """Ask for an order as a strategy of somebody's own does; its key."""
    now_ms = clock.now_ms()
    payload = {
        "pair": pair,
        "direction": "long",
        "size_usdc": Decimal(10),
        "leverage": Decimal(1),
        "timestamp_ms": now_ms,
        "key": f"own-{now_ms}",
    }
    event = Event(make_ulid(now_ms, os.urandom(10)), "order.requested", AGENT, payload, now_ms)
    connection = await aio_pika.connect(amqp_url)
    async with connection, connection.channel(on_return_raises=True) as channel:
        ingest = await channel.get_exchange(names.INGEST, ensure=False)
        message = aio_pika.Message(write_event(event), headers={"x-event-id": event.event_id})
        await ingest.publish(message, event.type)
    return str(payload["key"])


async def test_a_strategy_runs_on_paper_and_nothing_reaches_the_venue(
    amqp_url: str, store: Store, store_url: str, venue: Sandbox, tmp_path: Path
) -> None:
    """A long that is flipped, filled at the stream's prices; then a real order, told apart."""
    fleet = Fleet(amqp_url, store_url, venue.url, tmp_path)
    await fleet.say("topology", "apply")

    async def is_open(direction: str) -> bool:
        held = await store.read(lambda tx: positions.open_positions(tx, BOOK))
        return [(one.direction, one.state) for one in held] == [(direction, "open")]

    with fleet.running("worker", "--paper"), fleet.running("publisher"):
        await until(lambda: is_open("long"))
        go_on(venue, [1000] * 18 + [990])
        await until(lambda: is_open("short"))
        status = await fleet.say("status", "--once", "--json")
    assert venue.summary()["effects"] == 0, "the stand-in's ledger has no order"
    assert list(status["agents"]) == [BOOK]
    assert [(one["agent"], one["pair"]) for one in status["positions"]] == [(BOOK, BTC)]
    rows = await store.read(lambda tx: tx.query("SELECT position_key FROM positions"))
    book = [await store.read(lambda tx, key=key: positions.get(tx, key)) for (key,) in rows]
    (long,) = (one for one in book if one is not None and one.direction == "long")
    assert (long.state, long.venue_id) == ("closed", f"paper_{long.key}")
    assert (long.entry_price, long.exit_price) == (1010, 990)
    assert long.pnl == Decimal("-2.970297"), "50 USDC, three times, 20 of 1010 down"

    with fleet.running("worker"):
        key = await order(amqp_url, ETH)

        async def is_done() -> bool:
            row = await store.read(lambda tx: effects.get(tx, key))
            return row is not None and row.state == "done"

        await until(is_done)
        status = await fleet.say("status", "--once", "--json")
        text = await fleet.say("status", "--once")
    assert venue.summary()["opened"] == 1, "the real one alone"
    agents = {one["pair"]: one["agent"] for one in status["positions"]}
    assert agents == {BTC: BOOK, ETH: AGENT}
    assert set(status["agents"]) == {BOOK, AGENT}
    assert set(status["effects"]) >= {"order.requested", "order.requested on paper"}
    assert BOOK in text

    listed = {one["key"]: one for one in await fleet.say("effects", "list", "--json")}
    assert listed.pop(key)["mode"] == "full"
    assert {one["mode"] for one in listed.values()} == {"paper:full"}
    audit = await fleet.say("audit", "--witness", venue.url, "--json")
    assert audit["unaccounted"] == []
    assert audit["positions"] == {"open": 1, "open on paper": 1, "closed on paper": 1}
    assert audit["effects_by_kind"]["order.requested"] == {"done": 1}
    assert audit["effects_by_kind"]["order.requested on paper"] == {"done": 2}
