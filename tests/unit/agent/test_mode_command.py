"""`fleet mode` as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent import state
from fleet.store import Store


def mode(store_url: str, *words: str, **env: str) -> Any:
    """Run it on this store."""
    return subprocess.run(
        [sys.executable, "-m", "fleet", "mode", *words],
        env={**os.environ, "STORE_URL": store_url, **env},
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


async def test_an_operator_sets_and_sees_the_mode(store: Store, store_url: str) -> None:
    """Set with a note, shown as a table and as JSON; the workers read the same row."""
    assert "No agent has worked" in mode(store_url).stdout
    said = mode(store_url, "read_only", "--note", "holidays", "--by", "ann", PF_AGENT_ID="pf_a")
    assert said.returncode == 0, said.stderr
    assert "read_only" in said.stdout
    found = await store.read(state.every)
    assert (found["pf_a"].standing.mode, found["pf_a"].standing.operator) == ("read_only", "ann")
    shown = json.loads(mode(store_url, "show", "--json").stdout)
    assert shown["pf_a"]["standing"]["note"] == "holidays"
    again = mode(store_url, "full", "--note", "back")  # the only agent there is
    assert again.returncode == 0, again.stderr
    assert (await store.read(state.every))["pf_a"].standing.mode == "full"
    paper = mode(store_url, "full", "--note", "x", PF_AGENT_ID="pf_a", PAPER="1")
    assert "pf_a/paper" in paper.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("shutdown",), "Say why, with --note"),
        (("full", "--note", "x"), "Name the agent with --agent; the store knows: none yet"),
        (("shutdown", "--note", "x", "--agent", "typo"), "The store knows no agent typo"),
        (("show", "--agent", "typo"), "The store knows no agent typo"),
        (("sideways",), "'sideways' is not one of"),
    ],
)
@pytest.mark.usefixtures("store")
def test_what_is_missing_is_one_sentence(
    store_url: str, words: tuple[str, ...], sentence: str
) -> None:
    """Exit code 2, no traceback, nothing changed."""
    done = mode(store_url, *words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_is_not_there_is_said(tmp_path: Path) -> None:
    """Looking at a mode makes no store."""
    done = mode(f"sqlite:///{tmp_path}/none.db")
    assert done.returncode == 2
    assert "There is no store" in done.stderr
    assert not list(tmp_path.iterdir())
