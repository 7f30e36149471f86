"""A mistyped STORE_URL is said; no empty store is made in its place."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from fleet.cli import effects, failed
from fleet.core.errors import StoreError


@pytest.mark.parametrize("run", [effects.list_, failed.list_])
def test_what_failed_is_not_looked_for_in_a_new_store(
    run: click.Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An empty list would read as if nothing were unknown at the venue, and nothing had failed."""
    monkeypatch.setenv("STORE_URL", f"sqlite:///{tmp_path}/typo.sqlite3")
    monkeypatch.setenv("PF_AGENT_ID", "pf_agent_a")
    with pytest.raises(StoreError, match="There is no store"):
        run.main([], standalone_mode=False)
    assert list(tmp_path.iterdir()) == []
