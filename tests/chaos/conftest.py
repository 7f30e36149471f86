"""A fleet of real worker processes that tests may kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fleet.store import Store, open_store

STOP_S = 90
"""How long a drain may take on a busy machine; its grace is shorter."""

# What the workers run: its world is a file, to which one line is one effect. `DIE`
# says how likely a worker dies at a step, so that a death falls between any two steps.
HANDLERS = """
import os, pathlib, random, asyncio, time
from fleet.core.decision import Ack
from topology.model import Lanes
from workers.registry import Service
import msgspec

WORLD = pathlib.Path(os.environ["WORLD"])
DEATHS = WORLD.with_name("deaths")
DIE = float(os.environ.get("DIE", "0"))


class Seen(msgspec.Struct, frozen=True):
    numbers: tuple[int, ...] = ()


service = Service(os.environ["SERVICE"], lanes=Lanes(partitions=4))


def maybe_die(context):
    # Who kills three times is parked as a killer, and these are none.
    if random.random() < DIE and deaths().count(context.event.event_id) < 2:
        with DEATHS.open("a") as log:
            log.write(context.event.event_id + "\\n")
        os.kill(os.getpid(), 9)


def deaths():
    return DEATHS.read_text().split() if DEATHS.exists() else []


@service.handler("market.tick", state=Seen)
def on_tick(context, payload):
    seen = context.state or Seen()
    context.keep(Seen((*seen.numbers, payload["number"])))
    if payload["number"] % 5 == 4:
        context.emit("order.requested", {"key": f"{payload['pair']}-{payload['number']}"}, key="o")
    maybe_die(context)


async def ask(context, payload):
    done = payload["key"] in WORLD.read_text().split() if WORLD.exists() else False
    return Ack() if done else None


@service.handler("order.requested", effect="once", key=lambda p: p["key"], unknown=ask)
async def on_order(context, payload):
    maybe_die(context)
    await asyncio.sleep(0.002)
    with WORLD.open("a") as world:
        world.write(payload["key"] + "\\n")
    maybe_die(context)


@service.handler("test.killer")
def on_killer(context, payload):
    os._exit(9)


@service.handler("test.hungry")
def on_hungry(context, payload):
    eaten = []
    while True:
        if len(eaten) < 75:  # 600 MB: whoever ends it may come late
            eaten.append(bytearray(os.urandom(1 << 20)) * 8)
        time.sleep(0.02)


@service.handler("test.plain")
def on_plain(context, payload):
    maybe_die(context)
"""


class Fleet:
    """Worker processes of one service, and the store and world they share."""

    def __init__(self, url: str, store_url: str, folder: Path, service: str) -> None:
        self.url = url
        self.folder = folder
        self.service = service
        self.world = folder / "world"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "mine.py").write_text(textwrap.dedent(HANDLERS))
        self.store_url = store_url
        self.store: Store = open_store(self.store_url)

    def run(self, *arguments: str) -> str:
        """Run a fleet command to its end; its output."""
        return subprocess.run(
            [sys.executable, "-m", "fleet", *arguments],
            env=self._env(0),
            cwd=self.folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout

    def start(
        self,
        name: str,
        *options: str,
        die: float = 0.0,
        prefetch: int = 50,
        handlers: str = "mine:service",
        **more: str,
    ) -> None:
        """Start a worker that dies by itself with probability `die` at each dangerous step.

        `options` are the command's, `more` variables of its environment.
        """
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "fleet", "worker", "--handlers", handlers, *options],
                env={**self._env(die), "WORKER_NAME": name, "PREFETCH": str(prefetch), **more},
                cwd=self.folder,
                stderr=log,
            )

    def is_dead(self, name: str) -> bool:
        """Whether it ended."""
        return self._processes[name].poll() is not None

    def code(self, name: str) -> int | None:
        """The code it ended with; None while it lives."""
        return self._processes[name].poll()

    def pid(self, name: str) -> int:
        """Its process."""
        return self._processes[name].pid

    def memory_mb(self, name: str) -> float:
        """How much memory it has; 0 once it ended."""
        try:
            return psutil.Process(self._processes[name].pid).memory_info().rss / 1e6
        except psutil.Error:
            return 0.0

    def kill(self, name: str) -> None:
        """Kill -9."""
        self._processes[name].kill()
        self._processes[name].wait()

    def leave(self, name: str) -> None:
        """Ask one to drain, and wait until it has."""
        self._processes[name].send_signal(signal.SIGTERM)
        self._processes[name].wait(STOP_S)

    def stop(self) -> None:
        """Ask all of them to drain, and wait until they have."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise

    def log(self, name: str) -> str:
        """What a worker wrote."""
        return (self.folder / f"{name}.log").read_text()

    def _env(self, die: float) -> dict[str, str]:
        return {
            **os.environ,
            "AMQP_URL": self.url,
            "STORE_URL": self.store_url,
            "SERVICE": self.service,
            "WORLD": str(self.world),
            "DIE": str(die),
        }


@pytest.fixture
def fleet_over(amqp_url: str, tmp_path: Path) -> Iterator[Callable[[str], Fleet]]:
    """Makes a fleet over a store, with its topology applied and no worker yet."""
    made: list[Fleet] = []

    def make(store_url: str) -> Fleet:
        made.append(Fleet(amqp_url, store_url, tmp_path, "test.chaos"))
        made[-1].run("topology", "apply", "--handlers", "mine:service")
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def fleet(fleet_over: Callable[[str], Fleet], store_url: str) -> Fleet:
    """A fleet over the kind of store that the run is over."""
    return fleet_over(store_url)
