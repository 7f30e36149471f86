"""What the Kubernetes manifests promise, held against the settings, commands and names they use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.desk import SERVICE
from fleet.cli.main import COMMANDS
from fleet.telemetry import metrics
from publisher.settings import BridgeSettings
from topology import names
from topology.model import Lanes, ServiceLayout
from topology.plan import plan
from topology.users import users
from workers.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
LAYOUT = ServiceLayout(SERVICE, patterns=("a.b",), lanes=Lanes())
FOLDER = ROOT / "deploy/kubernetes"
README = (ROOT / "README.md").read_text("utf-8")


def documents(path: Path) -> list[dict[str, Any]]:
    """All that one file holds."""
    return [*yaml.safe_load_all(path.read_text("utf-8"))]


def build(folder: str) -> dict[str, Any]:
    """A kustomization."""
    (found,) = documents(FOLDER / folder / "kustomization.yaml")
    return dict(found)


BASE, KEDA = build("base"), build("keda")
OBJECTS = [each for name in BASE["resources"] for each in documents(FOLDER / "base" / name)]
PARTS = {
    each["metadata"]["name"]: each for each in OBJECTS if each["kind"] in {"Deployment", "Job"}
}
LITERALS = {
    one["name"]: dict(line.split("=", 1) for line in one["literals"])
    for one in BASE["configMapGenerator"]
}
PART = pytest.mark.parametrize("name", PARTS)


def pod(name: str) -> dict[str, Any]:
    """What the pods of a part are."""
    return dict(PARTS[name]["spec"]["template"]["spec"])


def container(name: str) -> dict[str, Any]:
    """The only container in a part's pods."""
    (one,) = pod(name)["containers"]
    return dict(one)


@pytest.mark.parametrize("folder", ["base", "keda"])
def test_every_file_belongs_to_it(folder: str):
    """No manifest is forgotten, and none is named that is not there."""
    files = {path.name for path in (FOLDER / folder).glob("*.yaml")}
    assert files == {*build(folder)["resources"], "kustomization.yaml"} - {"../base"}


@PART
def test_a_part_is_a_command(name: str):
    """Each runs a command that the fleet has, from the one image."""
    assert container(name)["args"][0] in COMMANDS
    assert container(name)["image"] == BASE["images"][0]["name"] == "flea-fleet"


def test_settings_are_those_that_are_read():
    """What is set is a setting of the README, and none is set to what it cannot be."""
    unknown = {each for each in LITERALS["fleet"] if f"`{each}`" not in README}
    assert unknown == set()
    assert re.search(r"HEALTH_HOST=0\.0\.0\.0", (ROOT / "Dockerfile").read_text("utf-8"))


@PART
def test_a_part_has_its_own_user_and_no_other_secret(name: str):
    """The user in the address is the one whose password is mounted."""
    told = {each["name"]: each.get("value", "") for each in container(name)["env"]}
    user = re.fullmatch(r"amqp://(\w+)@\$\(BROKER\)/", told["AMQP_URL"])
    assert user is not None
    assert user[1] in {each.name for each in users(plan([LAYOUT]))}
    files: dict[str, tuple[str, str]] = {}
    for volume in pod(name)["volumes"]:
        for source in volume.get("projected", {}).get("sources", []):
            secret = source["secret"]
            files |= {each["path"]: (secret["name"], each["key"]) for each in secret["items"]}
    (mount,) = (each for each in container(name)["volumeMounts"] if each["name"] == "secrets")
    assert files.pop("amqp") == ("fleet-amqp", user[1])
    assert files.pop("store") == ("fleet", "store")
    assert files.pop("agent_key", 0) in (0, ("fleet", "agent_key"))
    signing = {each: ("fleet-signing", each) for each in ("signing_key", "signing_keys")}
    assert files == ({} if name == "topology" else signing)
    for variable, path in LITERALS["fleet"].items():
        if variable.endswith("_FILE"):
            assert path.startswith(mount["mountPath"] + "/")
    assert next(iter(told)) == "BROKER"  # Kubernetes puts in what stands before


@PART
def test_a_pod_may_do_little(name: str):
    """What the pod standard "restricted" asks for, and a root that nobody writes to."""
    assert pod(name)["automountServiceAccountToken"] is False
    assert pod(name)["securityContext"]["runAsNonRoot"] is True
    assert pod(name)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container(name)["resources"]["limits"]


@pytest.mark.parametrize("name", ["worker", "publisher", "exporter"])
def test_what_stays_is_asked_where_it_answers(name: str):
    """The probes are for the image's port; ready is another question than alive."""
    (port,) = container(name)["ports"]
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    assert f"HEALTH_PORT={port['containerPort']}" in dockerfile
    probes = {"livenessProbe": "/livez", "startupProbe": "/livez", "readinessProbe": "/readyz"}
    for probe, path in probes.items():
        assert container(name)[probe]["httpGet"] == {"path": path, "port": port["name"]}


def test_who_drains_has_the_time():
    """A pod is killed only after the grace, and what a drain does beyond it."""
    for name, settings, field in (
        ("worker", WorkerSettings, "grace_s"),
        ("publisher", BridgeSettings, "grace_s"),
    ):
        grace = settings.model_fields[field].default
        assert pod(name)["terminationGracePeriodSeconds"] >= grace + 10


def test_selectors_find_their_pods():
    """Deployments, budgets and the service are about pods that exist."""
    for each in OBJECTS:
        spec = each.get("spec", {})
        selector = spec.get("selector", {})
        labels = selector.get("matchLabels", selector if each["kind"] == "Service" else {})
        if labels:
            name = labels["app.kubernetes.io/name"]
            assert PARTS[name]["spec"]["template"]["metadata"]["labels"] == labels


def test_the_number_of_workers_follows_what_there_is_to_do():
    """The queue is the service's, what is in hand counts, and the metric exists."""
    scaled, auth = documents(FOLDER / "keda/worker.yaml")
    assert scaled["spec"]["scaleTargetRef"]["name"] in PARTS
    length, age = scaled["spec"]["triggers"]
    assert length["metadata"]["queueName"] == names.work_queue(SERVICE)
    assert length["metadata"]["protocol"] == "http"  # AMQP would tell what is ready only
    assert length["metadata"]["excludeUnacknowledged"] == "false"
    assert length["authenticationRef"]["name"] == auth["metadata"]["name"]
    shown = re.search(r"(fleet_\w+)_bucket\{service=\"([\w.]+)\"", age["metadata"]["query"])
    assert shown is not None
    assert shown[1] in {family.name for family in metrics.REGISTRY.collect()}
    assert shown[2] == SERVICE
    assert scaled["spec"]["maxReplicaCount"] <= Lanes().partitions
