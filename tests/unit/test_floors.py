"""The house stands: arrows point down, nothing goes in circles, each door has one keeper."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("agent", "bench", "fleet", "publisher", "replay")
PACKAGES += ("sandbox", "topology", "workers")

FLOORS: Mapping[str, int] = {
    "fleet.core": 0,
    "fleet.amqp": 1,
    "fleet.backlog": 1,
    "fleet.clock": 1,
    "fleet.broker": 1,
    "fleet.settings": 1,
    "fleet.store": 1,
    "fleet.telemetry": 1,
    "topology": 1,
    "publisher": 2,
    "workers": 2,
    "agent": 3,
    "fleet.audit": 3,
    "fleet.doctor": 3,
    "fleet.exporter": 3,
    "fleet.status": 3,
    "replay": 3,
    "sandbox": 3,
    "bench": 4,
    "fleet.__main__": 4,
    "fleet.cli": 4,
    "fleet.demo": 4,
}
IMPURE = frozenset(
    {
        "aiohttp",
        "asyncio",
        "concurrent",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "random",
        "secrets",
        "select",
        "signal",
        "socket",
        "sqlite3",
        "structlog",
        "subprocess",
        "threading",
        "time",
        "uuid",
        "uvloop",
        "websockets",
    }
)
AMQP = frozenset({"aio_pika", "aiormq", "pamqp"})
AMQP_ELSEWHERE: Mapping[str, frozenset[str]] = {
    "bench": AMQP,  # it measures us beside them
    "fleet.broker.handshake": frozenset({"pamqp"}),  # a few frames on a plain socket, no client
}
NEVER_TOGETHER = (("publisher", "workers"), ("workers", "publisher"))
SANDBOX_MAY = ("sandbox", "fleet.clock", "fleet.core", "fleet.settings", "fleet.telemetry")


class Module:
    """One source file: its dotted name, and every import in it, at whatever place."""

    def __init__(self, root: Path, path: Path) -> None:
        parts = path.relative_to(root).with_suffix("").parts
        self.is_package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_package else parts)
        self.file = path.name
        self.tree = ast.parse(path.read_text("utf-8"))

    def imports(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each imported module, with the names taken from it; none for a plain import."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, ()) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield self._source(node), tuple(alias.name for alias in node.names)

    def _source(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        keep = len(self.name.split(".")) - node.level + self.is_package
        return ".".join([*self.name.split(".")[:keep], *([node.module] if node.module else [])])

    def reads_environment(self) -> bool:
        """Whether os.environ or os.getenv stands in it."""
        taken = {name for source, names in self.imports() if source == "os" for name in names}
        return bool((taken | self.attributes()) & {"environ", "environb", "getenv", "getenvb"})

    def attributes(self) -> set[str]:
        """Every name that stands behind a dot."""
        return {node.attr for node in ast.walk(self.tree) if isinstance(node, ast.Attribute)}


class House:
    """All modules below a root, and what imports what."""

    def __init__(self, root: Path) -> None:
        files = (path for name in PACKAGES for path in sorted((root / name).rglob("*.py")))
        self.modules = {module.name: module for module in (Module(root, path) for path in files)}
        self.arrows = {name: set(self._targets(name)) for name in self.modules}

    def _targets(self, name: str) -> Iterator[str]:
        for source, names in self.modules[name].imports():
            inner = [f"{source}.{taken}" for taken in names]
            yield from (each for each in inner if each in self.modules)
            if source in self.modules and not (inner and all(i in self.modules for i in inner)):
                yield source

    def faults(self) -> list[str]:
        """Every breach of the rules, in words."""
        return [*self._upward(), *self._circles(), *self._apart(), *self._doors()]

    def _upward(self) -> Iterator[str]:
        for name, targets in self.arrows.items():
            own = floor(name)
            if own is None:
                yield f"{name} stands on no floor: give it one in FLOORS"
                continue
            for target in sorted(targets):
                if (floor(target) or 0) > own:
                    yield f"{name} imports {target}, which is above it"

    def _circles(self) -> Iterator[str]:
        done: set[str] = set()
        path: list[str] = []

        def visit(name: str) -> Iterator[str]:
            if name in path:
                yield "a circle: " + " -> ".join([*path[path.index(name) :], name])
            if name in done:
                return
            done.add(name)
            path.append(name)
            for target in sorted(self.arrows[name] - {name}):
                yield from visit(target)
            path.pop()

        for name in self.arrows:
            yield from visit(name)

    def _apart(self) -> Iterator[str]:
        for name, targets in self.arrows.items():
            for target in sorted(targets):
                if (top(name), top(target)) in NEVER_TOGETHER:
                    yield f"{name} imports {target}: neither may know the other"
                if top(name) == "sandbox" and not within(target, SANDBOX_MAY):
                    yield f"{name} imports {target}: the witness must not know the fleet"

    def _doors(self) -> Iterator[str]:
        for name, module in self.modules.items():
            libraries = {top(source) for source, _ in module.imports()}
            if within(name, ("fleet.core",)):
                impure = sorted(libraries & IMPURE)
                yield from (f"{name} imports {each}: the core is pure" for each in impure)
                if module.attributes() & {"now", "today", "utcnow"}:
                    yield f"{name} looks at the clock: the core is pure"
            if not within(name, ("fleet.amqp",)):
                allowed = (AMQP_ELSEWHERE[at] for at in AMQP_ELSEWHERE if within(name, (at,)))
                strange = sorted((libraries & AMQP).difference(*allowed))
                yield from (f"{name} imports {each}: only fleet.amqp does" for each in strange)
            if module.file != "settings.py" and module.reads_environment():
                yield f"{name} reads the environment: only settings.py files do"


def floor(name: str) -> int | None:
    """The floor of a module: that of the longest name in FLOORS that it lies within."""
    if name == "fleet":
        return 0
    homes = [home for home in FLOORS if within(name, (home,))]
    return FLOORS[max(homes, key=len)] if homes else None


def within(name: str, homes: tuple[str, ...]) -> bool:
    """Whether a module is one of these or lies in one."""
    return any(f"{name}.".startswith(f"{home}.") for home in homes)


def top(name: str) -> str:
    """The first word of a dotted name."""
    return name.partition(".")[0]


def test_the_house_stands():
    """No import points up or in a circle, and only its keeper opens each door."""
    house = House(ROOT)
    assert len(house.modules) > 50
    assert house.faults() == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("fleet/core/a.py", "import topology.names", "above it"),
        ("fleet/amqp/a.py", "from workers import pool", "above it"),
        ("fleet/store/a.py", "def f():\n    from ..cli import main", "above it"),
        ("workers/a.py", "from agent.momentum import Window", "above it"),
        ("topology/a.py", "if x:\n    import publisher.bridge as b", "above it"),
        ("agent/a.py", "from fleet.cli import main", "above it"),
        ("workers/names.py", "from publisher import bridge", "neither"),
        ("publisher/a.py", "import workers.pool", "neither"),
        ("sandbox/a.py", "from workers import pool", "witness"),
        ("fleet/core/a.py", "import asyncio", "pure"),
        ("fleet/core/a.py", "def f():\n    from time import time", "pure"),
        ("fleet/core/a.py", "from random import random", "pure"),
        ("fleet/core/a.py", "import os.path", "pure"),
        ("fleet/core/a.py", "import socket", "pure"),
        ("fleet/core/a.py", "from datetime import datetime\nx = datetime.now()", "pure"),
        ("workers/a.py", "import aio_pika", "only fleet.amqp"),
        ("fleet/store/a.py", "from aiormq.abc import AbstractChannel", "only fleet.amqp"),
        ("topology/a.py", "import pamqp.frame", "only fleet.amqp"),
        ("fleet/broker/handshake.py", "import aiormq", "only fleet.amqp"),
        ("workers/a.py", "import os\nx = os.environ.get('A')", "environment"),
        ("workers/a.py", "from os import getenv", "environment"),
        ("fleet/strange/a.py", "", "no floor"),
        ("workers/pool.py", "import workers.gate", "a circle"),
        ("topology/names.py", "from .plan import plan", "a circle"),
    ],
)
def test_a_planted_fault_is_found(tmp_path: Path, path: str, source: str, fault: str):
    """A small house is sound; with one wrong line it is not, and the fault is named."""
    sound = {
        "fleet/__init__.py": "",
        "fleet/core/errors.py": "import json",
        "fleet/amqp/frames.py": "import pamqp\nfrom fleet.core import errors",
        "fleet/cli/main.py": "import workers.pool\nfrom publisher import bridge",
        "topology/names.py": "import zlib",
        "topology/plan.py": "from topology import names",
        "publisher/bridge.py": "from topology import names",
        "publisher/settings.py": "import os\nx = os.environ",
        "workers/__init__.py": "",
        "workers/pool.py": "from topology.names import lane",
        "workers/gate.py": "from . import pool",
        "agent/momentum.py": "from workers.pool import x",
        "sandbox/server.py": "from fleet.core.errors import FleetError",
        "bench/consume.py": "import aio_pika",
    }
    for name, text in sound.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert House(tmp_path).faults() == []
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(source)
    faults = House(tmp_path).faults()
    assert any(fault in found for found in faults), faults
