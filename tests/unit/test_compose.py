"""What the compose files promise: nothing is open to others, nothing may do more than it needs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


class Loader(yaml.SafeLoader):
    """Knows the two tags with which one compose file changes another."""


def _plain(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return loader.construct_sequence(node, deep=True)


for tag in ("!reset", "!override"):
    Loader.add_constructor(tag, _plain)


def services(name: str) -> dict[str, dict[str, Any]]:
    """The services of a compose file, its anchors resolved."""
    content = yaml.load((ROOT / name).read_text("utf-8"), Loader)  # noqa: S506 - a safe loader
    return dict(content["services"])


FLEET = services("docker-compose.yml")
CLUSTER = services("compose.cluster.yml")
SERVICES = [*FLEET.items(), *((name, one) for name, one in CLUSTER.items() if name not in FLEET)]


@pytest.mark.parametrize("name", FLEET)
def test_a_container_may_do_little(name: str):
    """A root nobody writes to, no capability, none to be gained, logs that end somewhere."""
    service = FLEET[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize(("name", "service"), SERVICES)
def test_nothing_is_published_beyond_this_machine(name: str, service: dict[str, Any]):
    """Ports are this machine's own, and can be moved."""
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:${"), name


@pytest.mark.parametrize("name", ["worker", "publisher"])
def test_what_scales_has_no_place_of_its_own(name: str):
    """No name, port or host name that two replicas would fight for; its end may take its time."""
    service = FLEET[name]
    assert not {"container_name", "ports", "hostname"} & service.keys()
    grace = {"worker": 25, "publisher": 10}[name]
    assert int(service["stop_grace_period"].removesuffix("s")) > grace


@pytest.mark.parametrize("name", FLEET)
def test_what_stays_up_says_whether_it_is_well(name: str):
    """The image has a health check; what another image runs brings its own."""
    service = FLEET[name]
    stays = service.get("restart") == "unless-stopped"
    checked = "build" in service or "test" in service.get("healthcheck", {})
    assert checked
    assert stays is not service.get("healthcheck", {}).get("disable", False)


@pytest.mark.parametrize(("name", "service"), SERVICES)
def test_no_secret_stands_in_the_environment(name: str, service: dict[str, Any]):
    """Passwords come as files, and an address names a user only."""
    for variable, value in service.get("environment", {}).items():
        text = str(value)
        assert not variable.endswith(("PASSWORD", "_KEY", "SECRET")), name
        assert ":" not in text.partition("://")[2].partition("@")[0] or "@" not in text, variable


def test_each_part_comes_as_its_own_user():
    """The users in the addresses are those whose passwords the part is given."""
    for name, service in FLEET.items():
        url = service.get("environment", {}).get("AMQP_URL")
        if url is None:
            continue
        user = url.partition("://")[2].partition("@")[0]
        told = {each["target"]: each["source"] for each in service["secrets"] if "target" in each}
        assert told.pop("amqp") == f"amqp_{user}", name
        asked = re.match(r"http://(\w+)@", service["environment"].get("MANAGEMENT_URL", ""))
        assert told == ({"management": f"amqp_{asked[1]}"} if asked else {}), name
        nodes = CLUSTER.get(name, {}).get("environment", {}).get("AMQP_URL")
        if nodes is not None:
            assert nodes == ",".join(f"amqp://{user}@rabbit{n}/" for n in (1, 2, 3))


def test_only_who_signs_or_verifies_has_the_keys():
    """Bridge, workers and an operator's tools; the files are named by whoever wants signatures."""
    having = {
        name for name, service in FLEET.items() if "signing_key" in service.get("secrets", [])
    }
    assert having == {"publisher", "worker", "fleet", "replay-failed"}
    content = yaml.load((ROOT / "docker-compose.yml").read_text("utf-8"), Loader)  # noqa: S506 - a safe loader
    assert content["secrets"]["signing_key"]["file"] == "${SIGNING_KEY_FILE:-/dev/null}"
