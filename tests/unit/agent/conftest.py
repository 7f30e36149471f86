"""The real store, the real stand-in of the platform, and a desk between them."""

from __future__ import annotations

import itertools
import os
import runpy
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent import records
from agent.desk import Desk, open_desk
from agent.records import Terms
from agent.settings import AgentSettings
from agent.world.settings import WorldSettings
from fleet.store import Store, effects, positions
from sandbox.server import Sandbox
from sandbox.settings import SandboxSettings
from workers.context import Startup

PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT", "DOT/USDT")
HIRED = "pf_agent_hired"
RUNNER = Path(__file__).with_name("runner.py")

Start = Callable[..., Any]


@pytest.fixture(scope="session")
def floor() -> SimpleNamespace:
    """What `runner.py` defines: test folders are no packages."""
    return SimpleNamespace(**runpy.run_path(str(RUNNER)), PAIRS=PAIRS, PATH=RUNNER)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine reaches a test."""
    names = (
        "PF_",
        "SANDBOX_",
        "MOMENTUM_",
        "MAX_",
        "MIN_",
        "MODE_",
        "BREAKER_",
        "CAPITAL_",
        "STRATEGY",
        "CANDLE_",
        "PAPER",
        "LEVERAGE",
        "TICK_",
        "ORDER_",
        "FAUCET",
        "HIRE_",
        "INCOME_",
    )
    for name in [name for name in os.environ if name.startswith(names)]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def no_look_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mode is looked at when a test says so, with the time that it says."""
    monkeypatch.setattr("agent.watch.EVERY_S", 3600.0)


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    """One trade of every pair, so that each has a price."""
    path = tmp_path / "tape.csv"
    lines = [f"{1_700_000_000_000 + n},{pair},{100 + n},1" for n, pair in enumerate(PAIRS)]
    path.write_text("\n".join(["ts_ms,pair,price,qty", *lines]) + "\n")
    return path


@pytest.fixture
async def sandbox(tape: Path) -> AsyncIterator[Start]:
    """Start a stand-in with these settings; every pair has a price once it is there."""
    async with AsyncExitStack() as stack:

        async def start(**given: Any) -> Sandbox:
            plain = {"port": 0, "speed": "max", "script_every": 0, "trades": tape}
            running = await stack.enter_async_context(Sandbox(SandboxSettings(**plain, **given)))
            await running._playing
            return running

        yield start


@pytest.fixture
def post(floor: SimpleNamespace) -> Any:
    """What a desk publishes from outside of a handler."""
    return floor.Post()


@pytest.fixture
async def desk(store: Store, post: Any) -> AsyncIterator[Start]:
    """Open a desk at a stand-in, with the agent's settings changed as told."""
    async with AsyncExitStack() as stack:

        async def start(url: str, **given: Any) -> Desk:
            plain = {
                "agent_id": "pf_agent_sandbox",
                "agent_key": "pf_live_sandbox",
                "api_timeout_s": 60,
            }
            world = given.pop("world", None)
            settings = AgentSettings(api_url=url, **{**plain, **given})
            startup = Startup(store, "worker-1", post.publish)
            return await stack.enter_async_context(open_desk(settings, startup, world))

        yield start


class Office:
    """A desk, a stand-in and a runner, and what tests ask of them."""

    def __init__(self, floor: SimpleNamespace, sandbox: Any, desk: Any) -> None:
        self.sandbox = sandbox
        self.desk = desk
        self.runner = floor.Runner(desk)
        self.run = self.runner.run
        self.order = floor.order
        self.event = floor.event_of
        self.now = floor.now()

    def wish(self, pair: str, way: str, minute: int = 0, **more: Any) -> Any:
        """The event of an order in the given minute from now."""
        return self.event(self.order(pair, way, self.now + minute * 60_000, **more))

    async def trade(self, pair: str, way: str, minute: int = 0, **more: Any) -> Any:
        """Deliver an order once."""
        return await self.run(self.wish(pair, way, minute, **more))

    async def book(self) -> dict[str, tuple[str, str]]:
        """Direction and state of what takes a place."""
        held = await self.desk.store.read(
            lambda tx: positions.open_positions(tx, "pf_agent_sandbox")
        )
        return {one.pair: (one.direction, one.state) for one in held}

    async def venue(self) -> dict[str, str]:
        """Direction of what is open at the venue; a pair twice is a failure."""
        listed = await self.desk.venue.positions()
        assert len({one.pair for one in listed}) == len(listed)
        return {one.pair: one.direction for one in listed}

    def done(self) -> Counter[str]:
        """How often the venue did what."""
        return Counter(effect.kind for effect in self.sandbox.ledger._effects)

    async def effect(self, event: Any) -> Any:
        """The row of an order's effect."""
        key = event.payload["key"]
        return await self.desk.store.read(lambda tx: effects.get(tx, key))

    async def place(self, event: Any) -> Any:
        """The row of an order in the book."""
        key = event.payload["key"]
        return await self.desk.store.read(lambda tx: positions.get(tx, key))

    async def hired(self, job: str, amount: str = "12.34", agent: str = HIRED) -> None:
        """Let it be known that an agent was hired for a job, as hiring leaves it."""
        agreed = Terms(agent, Decimal(amount))
        old_id = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
        await self.desk.store.run(
            lambda tx: records.agree(tx, "pf_agent_sandbox", job, agreed, old_id)
        )


@pytest.fixture
async def office(
    floor: SimpleNamespace, sandbox: Any, desk: Any, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Open an office; keywords are settings of the stand-in and, under `agent`, of the agent.

    From then on each look at the clock is a millisecond after the one before, however long it took.
    """

    async def start(agent: dict[str, Any] | None = None, **given: Any) -> Office:
        running = await sandbox(**given)
        made = Office(floor, running, await desk(running.url, **(agent or {})))
        looks = itertools.count(made.now + 1)
        monkeypatch.setattr("fleet.clock.now_ms", lambda: next(looks))
        return made

    return start


@pytest.fixture
async def world(office: Any, tmp_path: Path) -> Start:
    """Open an office whose world is set as told."""

    async def start(faults: str = "", api_timeout_s: float = 60, **given: Any) -> Any:
        settings = WorldSettings(**{"evidence_dir": tmp_path / "evidence", **given})
        agent = {"world": settings, "api_timeout_s": api_timeout_s}
        return await office(agent=agent, faults=faults)

    return start
