"""docker-compose.yml under load: scaled up and down, killed, and every event accounted for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_scaled_and_killed(begin: Callable[..., Any], tape: Path):
    """Workers and the leading bridge are killed, the fleet grows and shrinks: nothing is lost."""
    project = begin(SANDBOX_TAPE=str(tape), SANDBOX_SPEED="20")
    project.up(worker=3, publisher=2)
    project.wait_for(lambda: project.journalled() > 100, "the first events are handled")
    led, begun = project.leader(), len(project.leads())
    killed = project.containers("worker")[0]
    project.kill(killed)
    project.kill(led)
    project.wait_for(lambda: project.restarts(killed), "a killed worker is started again")
    project.wait_for(lambda: len(project.leads()) > begun, "a bridge leads again")
    project.up(worker=5, publisher=2)
    assert len(project.containers("worker")) == 5
    project.up(worker=1, publisher=2)
    assert len(project.containers("worker")) == 1
    found = project.finished(at_least=20_000)
    assert (found["unaccounted"], found["doubled"]) == ([], 0)
    assert found["effects"], "the agent has traded"
    listed = json.loads(project.tool("replay-failed", "list", "--json"))
    assert listed["queue"] == "pf.trading.agent.failed"
    assert listed["waiting"] == found["failed"]
