"""compose.cluster.yml under load: a node is killed and comes back, every event accounted for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

NODES = {"rabbit@rabbit1", "rabbit@rabbit2", "rabbit@rabbit3"}


def test_a_node_is_killed(begin: Callable[..., Any], tape: Path):
    """Every queue has three members, so the fleet works on at two nodes, and nothing is lost."""
    files = ("docker-compose.yml", "compose.cluster.yml")
    project = begin(*files, SANDBOX_TAPE=str(tape), SANDBOX_SPEED="15")
    project.up(worker=2, publisher=2)
    listed = project.compose(
        *("exec", "-T", "rabbit2", "rabbitmqctl", "-q", "--formatter", "json"),
        *("list_queues", "name", "members", "leader"),
    )
    queues = json.loads(listed)
    assert {name: set(members) for name, members in _members(queues)} == dict.fromkeys(
        (queue["name"] for queue in queues), NODES
    )
    assert {queue["leader"] for queue in queues} == NODES
    project.wait_for(lambda: project.journalled() > 100, "the first events are handled")
    project.compose("kill", "rabbit1")
    before = project.journalled()
    project.wait_for(lambda: project.journalled() > before + 2_000, "it goes on at two nodes")
    project.up(worker=2, publisher=2)
    found = project.finished(at_least=20_000)
    assert (found["unaccounted"], found["doubled"]) == ([], 0)


def _members(queues: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    return [(queue["name"], queue["members"]) for queue in queues]
