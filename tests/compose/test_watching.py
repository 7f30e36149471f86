"""The profile with Prometheus: every replica is found by its service's name, and tells."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

IMAGE = "prom/prometheus:latest"
WANTED = {"worker": 2, "publisher": 2, "exporter": 1, "rabbitmq": 1, "rabbitmq-queues": 1}


@pytest.fixture
def _prometheus() -> None:
    """Prometheus, which is no part of the fleet's own files."""
    look = ["docker", "image", "inspect", IMAGE]
    if subprocess.run(look, capture_output=True, check=False).returncode:
        pytest.skip(f"the image {IMAGE} is not here: docker pull {IMAGE}")


@pytest.mark.usefixtures("_prometheus")
def test_prometheus_finds_every_replica(begin: Callable[..., Any]):
    """Two of each are scraped, the broker with them, and events are counted."""
    project = begin(COMPOSE_PROFILES="prometheus", PROMETHEUS_PORT="0", SANDBOX_SPEED="10")
    project.up(worker=2, publisher=2)

    def asked(query: str) -> dict[str, float]:
        """The value of each job."""
        words = ("promtool", "query", "instant", "--format=json", "http://127.0.0.1:9090", query)
        found = json.loads(project.compose("exec", "-T", "prometheus", *words))
        return {each["metric"].get("job", ""): float(each["value"][1]) for each in found}

    project.wait_for(lambda: asked("sum by (job) (up)") == WANTED, "all are scraped")
    counted = 'sum(fleet_events_total{outcome="done"})'
    project.wait_for(lambda: asked(counted).get("", 0) > 0, "events are counted")
