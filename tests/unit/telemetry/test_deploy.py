"""Alerts and dashboard speak of metrics that exist, and each alert is explained."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.telemetry import metrics

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text("utf-8"))
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/fleet.json").read_text("utf-8"))
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
ELSEWHERE = ("rabbitmq_", "process_")


def exposed() -> set[str]:
    """The names of all samples that the fleet's processes can show."""
    found: set[str] = set()
    for registry in (metrics.REGISTRY, metrics.FLEET):
        for family in registry.collect():
            found |= {family.name + end for end in SUFFIXES.get(family.type, ("",))}
    return found


def panels() -> Iterator[dict[str, Any]]:
    """The panels that show something."""
    return (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def expressions() -> list[str]:
    """Every query of alerts and dashboard."""
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [*shown, *(alert["expr"] for alert in ALERTS)]


@pytest.mark.parametrize("expression", expressions())
def test_a_query_asks_for_metrics_that_exist(expression: str):
    """Each name is one of metrics.py, or of RabbitMQ or Prometheus itself."""
    bare = re.sub(r'"[^"]*"|\{\{[^}]*\}\}', "", expression)
    names = set(re.findall(r"\b[a-z]+_[a-z_]+(?=[\[{) =]|$)", bare)) - {"histogram_quantile"}
    names = {name for name in names if not name.startswith(ELSEWHERE)}
    names -= set(re.findall(r"(?:by|on) \(([^)]*)\)", bare))
    assert names <= exposed()
    assert names or re.search(r"\b(up|rabbitmq_|process_)", bare)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]):
    """Severity, a sentence, and a link to a section that is there."""
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["annotations"]["summary"].endswith(".")
    path, _, anchor = alert["annotations"]["runbook"].partition("#")
    titles = re.findall(r"^## (.+)$", (ROOT / path).read_text("utf-8"), re.MULTILINE)
    assert anchor in {title.lower() for title in titles}


def test_no_section_explains_an_alert_that_is_gone():
    """Every section of docs/prometheus.md is an alert."""
    text = (ROOT / "docs/prometheus.md").read_text("utf-8")
    titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert titles == [alert["alert"] for alert in ALERTS]


def test_the_dashboard_is_sound():
    """Each panel has an id of its own, a place of its own and the provisioned source."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    source = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text("utf-8")
    )["datasources"][0]["uid"]
    assert {panel["datasource"]["uid"] for panel in panels()} == {source}


def test_every_metric_of_the_fleet_is_looked_at():
    """What is measured is on the dashboard or in an alert, or it would be measured in vain."""
    asked = " ".join(expressions())
    unseen = {
        family.name
        for registry in (metrics.REGISTRY, metrics.FLEET)
        for family in registry.collect()
        if family.name.startswith("fleet_") and family.name not in asked
    }
    assert unseen <= {"fleet_worker_info", "fleet_failed_alarm", "fleet_consumers"}
