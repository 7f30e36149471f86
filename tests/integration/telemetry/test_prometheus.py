"""Prometheus itself reads the configuration, and its alerts fire on what they are for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest

from fleet.telemetry import metrics

DEPLOY = Path(__file__).parents[3] / "deploy"
IMAGE = "prom/prometheus"
Promtool = Callable[..., str]


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    """Runs promtool in a folder: from the PATH, else from Prometheus's image."""
    if local := shutil.which("promtool"):
        return lambda folder, *words, **given: _run([local, *words], folder, **given)
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run(
            [docker, "image", "inspect", IMAGE], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip(f"no promtool on the PATH and no Docker with {IMAGE}")
    inside = [docker, "run", "--rm", "-i", "--network", "none", "--entrypoint", "promtool"]
    return lambda folder, *words, **given: _run(
        [*inside, "-v", f"{folder}:/p:ro", "-w", "/p", IMAGE, *words], folder, **given
    )


def _has_image(docker: str) -> bool:
    look = [docker, "image", "inspect", IMAGE]
    return not subprocess.run(look, capture_output=True, check=False).returncode


def _run(command: list[str], folder: Path, given: str = "") -> str:
    done = subprocess.run(
        command, cwd=folder, input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_is_valid(promtool: Promtool):
    """Scrapes and rules are what Prometheus understands."""
    assert "30 rules" in promtool(DEPLOY / "prometheus", "check", "config", "prometheus.yml")


def test_each_alert_fires_on_its_fault_and_on_nothing_else(promtool: Promtool):
    """rules.test.yml holds, and has a fault for every alert."""
    text = (DEPLOY / "prometheus/rules.test.yml").read_text("utf-8")
    rules = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text("utf-8"))
    names = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert set(re.findall(r'alertname="(\w+)"', text)) == names
    promtool(DEPLOY / "prometheus", "test", "rules", "rules.test.yml")


def test_the_metrics_keep_prometheus_s_conventions(promtool: Promtool, tmp_path: Path):
    """Names, units and types are as promtool wants them, with samples of our own histograms."""
    metrics.HANDLER_SECONDS.labels("service", "handler").add(0.2)
    page = generate_latest(metrics.REGISTRY) + generate_latest(metrics.FLEET)
    assert promtool(tmp_path, "check", "metrics", given=page.decode()) == ""


def test_the_dashboard_s_queries_can_be_asked(promtool: Promtool, tmp_path: Path):
    """Every query of the dashboard is PromQL."""
    dashboard = json.loads((DEPLOY / "grafana/dashboards/fleet.json").read_text("utf-8"))
    queries = [
        target["expr"].replace("$__rate_interval", "1m").replace("$service", ".*")
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]
    rules = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    tmp_path.chmod(0o755)
    assert f"{len(queries)} rules" in promtool(tmp_path, "check", "rules", "queries.yml")
