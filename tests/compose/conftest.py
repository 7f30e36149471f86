"""The compose files as a user runs them: an image of this tree, own projects, real kills."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ("python:3.13-slim", "rabbitmq:4-management", "postgres:17")
WITNESS = ("--witness", "http://sandbox:8765")
TRADES = 34_000
AGENT = "MOMENTUM_WINDOW=5\nMOMENTUM_THRESHOLD=0.0001\nTICK_MAX_AGE_S=600\n"


def run(*words: str, timeout: float = 240, **environment: str) -> str:
    """What a command prints; it must end well."""
    done = subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def works(*words: str) -> bool:
    """Whether a command can be had and ends well."""
    try:
        return not subprocess.run(words, capture_output=True, timeout=300, check=False).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


class Project:
    """One compose project with secrets of its own; what it is told stands in its environment."""

    def __init__(self, folder: Path, image: str, *files: str, **told: str) -> None:
        self.name = f"fleet-test-{uuid.uuid4().hex[:8]}"
        self._files = [word for file in files for word in ("-f", file)]
        run("scripts/secrets", str(folder / "secrets"))
        (folder / "env").write_text(AGENT)
        self._told = {
            "COMPOSE_PROJECT_NAME": self.name,
            "FLEET_IMAGE": image,
            "FLEET_ENV": str(folder / "env"),
            "SECRETS": str(folder / "secrets"),
            "MANAGEMENT_PORT": "0",
            **told,
        }

    def compose(self, *words: str, timeout: float = 240) -> str:
        """What `docker compose words…` prints."""
        return run("docker", "compose", *self._files, *words, timeout=timeout, **self._told)

    def wait_for(self, condition: Callable[[], Any], what: str, deadline_s: float = 120) -> None:
        """Return once `condition` holds; fail after the deadline, with what the fleet says."""
        until = time.monotonic() + deadline_s
        while not condition():
            said = (
                ""
                if time.monotonic() < until
                else self.compose("logs", "--no-color", "--tail", "12")
            )
            assert not said, f"not in {deadline_s:.0f} s: {what}\n{said}"
            time.sleep(0.5)

    def up(self, **scale: int) -> None:
        """Start what is missing, so many replicas of a service, and wait until all are healthy."""
        wanted = [word for name, n in scale.items() for word in ("--scale", f"{name}={n}")]
        try:
            self.compose("up", "-d", "--wait", "--no-build", *wanted)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.compose('logs', '--tail', '20')}") from None

    def tool(self, service: str, *words: str) -> str:
        """What a command prints in a container of `service`, made for it and removed."""
        return self.compose("run", "--rm", "-T", "--no-deps", service, *words)

    def containers(self, service: str) -> list[str]:
        """The running containers of a service."""
        return self.compose("ps", "-q", service).split()

    def kill(self, container: str) -> None:
        """Kill -9 what runs in a container; its restart policy sees that it ended by itself."""
        # All but PID 1, the container's init, which ends with its child.
        subprocess.run(["docker", "exec", container, "sh", "-c", "kill -9 -1"], check=False)

    def journalled(self) -> int:
        """How many events have a row in the journal; cheaper than an audit."""
        count = ("psql", "-U", "postgres", "-d", "fleet", "-Atc", "SELECT count(*) FROM journal")
        return int(self.compose("exec", "-T", "postgres", *count))

    def restarts(self, container: str) -> int:
        """How often Docker has started a container again."""
        return int(run("docker", "inspect", "-f", "{{.RestartCount}}", container))

    def leader(self) -> str:
        """The container of the bridge that began to lead last."""
        return max(self.leads())[1]

    def leads(self) -> list[tuple[str, str]]:
        """When a bridge began to lead, and in which container, for each time."""
        return [
            (json.loads(line)["timestamp"], container)
            for container in self.containers("publisher")
            for line in subprocess.run(
                ["docker", "logs", container], capture_output=True, text=True, check=True
            ).stderr.splitlines()
            if '"bridge leads"' in line
        ]

    def audit(self) -> dict[str, Any]:
        """The audit's findings, whatever they come to, with the sandbox's ledger as witness."""
        words = ("run", "--rm", "-T", "--no-deps", "fleet", "audit", "--json", *WITNESS)
        done = subprocess.run(
            ["docker", "compose", *self._files, *words],
            cwd=ROOT,
            env={**os.environ, **self._told},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr[-4000:]
        return dict(json.loads(done.stdout))

    def finished(self, at_least: int) -> dict[str, Any]:
        """The findings once the tape is over and nothing waits any more."""
        found: list[dict[str, Any]] = [{"emitted": 0}]

        def quiet() -> bool:
            found.append(self.audit())
            before, now = found[-2:]
            return now["emitted"] == before["emitted"] >= at_least and not now["waiting"]

        self.wait_for(quiet, "the tape is over and handled", 180)
        return found[-1]

    def down(self) -> None:
        """Remove all of it."""
        self.compose("--profile", "*", "down", "-v", "--remove-orphans", "-t", "10")

    def left(self) -> str:
        """What is still there of this project."""
        label = f"label=com.docker.compose.project={self.name}"
        return "".join(
            run("docker", *words, "-q", "--filter", label)
            for words in (("ps", "-a"), ("volume", "ls"), ("network", "ls"))
        )


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """An image of this tree, under a name of its own."""
    if not works("docker", "compose", "version") or not works("docker", "info"):
        pytest.skip("Docker with Compose does not answer here")
    for name in IMAGES:
        if not works("docker", "image", "inspect", name) and not works(
            "docker", "pull", "-q", name
        ):
            pytest.skip(f"the image {name} cannot be had here")
    tag = f"flea-fleet-test:{uuid.uuid4().hex[:8]}"
    run("docker", "build", "-q", "-t", tag, ".", timeout=600)
    yield tag
    run("docker", "image", "rm", "-f", tag)


@pytest.fixture
def begin(image: str, tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """Begins a project of these files and settings; nothing of it is left behind."""
    begun: list[Project] = []

    def new(*files: str, **told: str) -> Project:
        begun.append(Project(tmp_path, image, *files, **told))
        return begun[-1]

    yield new
    for project in begun:
        project.down()
        assert project.left() == ""


@pytest.fixture(scope="session")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded tape where there is one, else a made-up one as long."""
    recorded = Path(os.environ.get("FLEET_DATA") or ROOT.parent / "shared" / "data")
    file = recorded / "trades-btcusdt-ethusdt-20240808.csv.gz"
    if file.is_file():
        return file
    made = tmp_path_factory.mktemp("tape") / "trades.csv.gz"
    chance = random.Random(8)  # noqa: S311 - a made-up market, the same each time
    prices = {"BTC/USDT": 61_000.0, "ETH/USDT": 2_680.0}
    with gzip.open(made, "wt", newline="") as target:
        rows = csv.writer(target)
        rows.writerow(("ts_ms", "pair", "price", "qty"))
        for number in range(TRADES):
            pair = chance.choice(sorted(prices))
            prices[pair] *= 1 + chance.gauss(0, 0.0002)
            rows.writerow((1_723_161_255_000 + number * 19, pair, f"{prices[pair]:.2f}", "0.1"))
    return made
