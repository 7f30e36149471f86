"""What the image is built from is what the project needs, and nothing is taken on trust."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCKS = ("requirements.lock", "requirements-build.lock")
EXTRAS = ("alerts", "otel", "postgres")
"""Those that the image has; the others are for people who develop it."""


def locked(name: str) -> dict[str, str]:
    """The versions in a lock file."""
    text = (ROOT / name).read_text("utf-8")
    return dict(re.findall(r"^([a-z0-9.\-]+)==(\S+) \\$", text, re.MULTILINE))


def needed() -> list[str]:
    """The requirements of the project and of its extras in the image."""
    project = PROJECT["project"]
    extras = project.get("optional-dependencies", {})
    return [*project["dependencies"], *(one for name in EXTRAS for one in extras.get(name, []))]


@pytest.mark.parametrize(
    ("lock", "requirement"),
    [
        *((LOCKS[0], one) for one in needed()),
        *((LOCKS[1], one) for one in PROJECT["build-system"]["requires"]),
    ],
)
def test_the_lock_has_what_is_needed(lock: str, requirement: str):
    """Each requirement is locked to a version within its bounds; if not, `make lock` is due."""
    wanted = Requirement(requirement)
    version = locked(lock).get(canonicalize_name(wanted.name))
    assert version is not None
    assert wanted.specifier.contains(version)


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_has_a_hash_and_no_address(lock: str):
    """Each package is told by hash alone: no index, file or host is named."""
    text = (ROOT / lock).read_text("utf-8")
    assert len(re.findall(r"^\S+==\S+ \\\n    --hash=sha256:", text, re.MULTILINE)) == len(
        locked(lock)
    )
    assert not re.search(r"://|--index|--find-links|--trusted|^-e|@ ", text, re.MULTILINE)
