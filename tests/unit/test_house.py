"""What holds for the project as a whole: its packages, its documents, its first example."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import AliasChoices
from pydantic_settings import BaseSettings

from fleet.cli.main import COMMANDS
from fleet.core.decision import Decision
from fleet.core.events import Event
from fleet.core.payloads import LowBalance
from workers.context import Context
from workers.registry import Service

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
PYTHON_BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
LONGEST = 350


def short(path: Path) -> str:
    """The path as a person says it."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_typed(package: str):
    """Every package that is shipped says that its annotations may be relied upon."""
    assert (ROOT / package / "__init__.py").is_file()
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_a_module_says_what_it_is_for(path: Path):
    """Every module begins with a docstring and stays readable on a few screens."""
    text = path.read_text("utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{short(path)} has no docstring"
    assert text.count("\n") <= LONGEST


def test_every_folder_is_a_package():
    """No folder with modules lacks its __init__, so none is left out of the wheel."""
    assert {short(p.parent) for p in SOURCES if not (p.parent / "__init__.py").is_file()} == set()


def test_the_changelog_is_about_this_version():
    """The newest entry of the changelog is the version in pyproject.toml."""
    entries = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert entries[0] == PROJECT["project"]["version"]


def test_the_readme_names_every_command():
    """A command that exists is in the README's table."""
    assert {name for name in COMMANDS if f"`fleet {name}`" not in README} == set()


def settings() -> set[str]:
    """The environment variables that any settings class reads."""
    found: set[str] = set()
    for path in SOURCES:
        if path.name == "settings.py":
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            classes = vars(importlib.import_module(name)).values()
            kinds = [each for each in classes if inspect.isclass(each)]
            found |= {
                variable
                for kind in kinds
                if issubclass(kind, BaseSettings)
                for variable in _variables(kind)
            }
    return found


def _variables(kind: type[BaseSettings]) -> set[str]:
    prefix = kind.model_config.get("env_prefix") or ""
    found: set[str] = set()
    for name, field in kind.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias or prefix + name]
        found |= {str(choice).upper() for choice in choices}
    return found


def test_the_readme_names_every_setting():
    """A variable that is read is in the README's table; the sandbox's are its options."""
    read = {name for name in settings() if not name.startswith("SANDBOX_")}
    assert "STORE_URL" in read
    assert {name for name in read if f"`{name}`" not in README} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=short)
def test_links_lead_somewhere(document: Path):
    """What a document links to inside the project is there."""
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text("utf-8")):
        assert (document.parent / link).exists(), link


@pytest.mark.parametrize("number", range(len(PYTHON_BLOCKS)))
def test_the_readme_s_python_runs(number: int):
    """Every Python block of the README can be run as it stands."""
    exec(compile(PYTHON_BLOCKS[number], f"README block {number}", "exec"), {"__name__": "mine"})  # noqa: S102 - ours


async def test_the_readme_s_handler_handles():
    """The example is a service, and its handler takes the event it is written for."""
    scope: dict[str, object] = {"__name__": "mine"}
    exec(compile(PYTHON_BLOCKS[0], "mine.py", "exec"), scope)  # noqa: S102 - ours
    service = scope["service"]
    assert isinstance(service, Service)
    payload = {"balance_usdc": 1, "threshold_usdc": 2}
    event = Event(
        "01ARZ3NDEKTSV4RRFFQ69G5FAV", "wallet.low_balance", "a", payload, 1_700_000_000_000
    )
    handler = service.find(event.type)
    assert handler is not None
    assert isinstance(handler.read(event), LowBalance)
    context = Context(event, attempt=1, is_replay=False, now_ms=event.ts, worker="w", app=None)
    result = handler.function(context, handler.read(event))
    decision = await result if inspect.isawaitable(result) else result
    assert decision is None or isinstance(decision, Decision)


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("fleet.cli.worker, agent.handlers", {"aiohttp", "statistics"}),
        ("fleet.cli.publisher", {"aiohttp.web", "statistics"}),
    ],
)
def test_who_runs_all_day_imports_no_more_than_it_needs(modules: str, heavy: set[str]):
    """Memory counts times the replicas: no table, no server, no store that is not used."""
    lines = (
        "import sys, fleet.cli.main as cli",
        "cli.import_structlog()",
        f"import {modules}, structlog",
        "print(*sys.modules)",
        "import rich.console",
    )
    told = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], check=True, capture_output=True, text=True
    )
    never = {"rich", "pygments", "sqlite3", "psycopg", "apprise", "opentelemetry", "hypothesis"}
    assert set(told.stdout.split()) & {*never, *heavy} == set()


def test_the_readme_s_commands_find_the_handler(tmp_path: Path):
    """`--handlers mine:service`, in the folder of mine.py, is the service's own layout."""
    lines = [line for line in PYTHON_BLOCKS[0].splitlines() if line.strip()]
    assert len(lines) <= 10
    assert "--handlers mine:service" in README
    (tmp_path / "mine.py").write_text(PYTHON_BLOCKS[0])
    shown = subprocess.run(
        [sys.executable, "-m", "fleet", "topology", "show", "--handlers", "mine:service", "--json"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    layout = json.loads(shown.stdout)
    assert "pf.balance.watch" in {queue["name"] for queue in layout["queues"]}
    assert ("pf.balance.watch", "wallet.low_balance") in {
        (binding["destination"], binding["routing_key"]) for binding in layout["bindings"]
    }


def test_what_is_said_of_handlers_runs(tmp_path: Path):
    """The service of docs/handlers.md can be loaded, and its test of the README's passes."""
    text = (ROOT / "docs/handlers.md").read_text("utf-8")
    (tmp_path / "mine.py").write_text(PYTHON_BLOCKS[0])
    named = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    for name, block in named.findall(text):
        (tmp_path / name).write_text(block)
    for words in (["fleet", "topology", "show", "--handlers", "jobs:service"], ["pytest", "-q"]):
        subprocess.run(
            [sys.executable, "-m", *words], cwd=tmp_path, check=True, capture_output=True
        )
