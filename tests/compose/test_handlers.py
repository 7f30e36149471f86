"""A user's own handlers in the containers: from a folder, and in an image of their own."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fleet.broker import Management

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
MINE = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[0]
CONTAINERS = (ROOT / "docs/docker.md").read_text("utf-8")
DERIVED = re.findall(r"^```dockerfile\n(.*?)^```", CONTAINERS, re.MULTILINE | re.DOTALL)[0]
BESIDE = re.findall(r"^```yaml\n(.*?)^```", CONTAINERS, re.MULTILINE | re.DOTALL)[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the README's handler."""
    handlers = tmp_path / "handlers"
    handlers.mkdir()
    (handlers / "mine.py").write_text(MINE)
    tmp_path.chmod(0o755)
    return handlers


def test_handlers_from_a_folder(begin: Callable[..., Any], folder: Path):
    """HANDLERS and HANDLERS_PATH are all it takes: layout, users and worker are the service's."""
    project = begin(HANDLERS="mine:service", HANDLERS_PATH=str(folder), SANDBOX_SCRIPT_EVERY="5")
    project.up()
    project.wait_for(project.journalled, "the handler has handled")
    assert "low balance" in project.compose("logs", "worker")
    found = project.audit()
    assert [each["name"] for each in found["services"]] == ["balance.watch"]
    assert found["unaccounted"] == []
    listed = project.tool("replay-failed", "list")
    assert listed.strip() == "Nothing waits in pf.balance.watch.failed."


def test_two_services(begin: Callable[..., Any], folder: Path, tmp_path: Path):
    """docs/docker.md's second file: own workers, a doctor finds nothing, none is forged."""
    secrets, beside = tmp_path / "secrets", tmp_path / "compose.override.yml"
    words = ("worker.trading.agent", "worker.balance.watch")
    subprocess.run(["scripts/secrets", secrets, *words], cwd=ROOT, check=True)
    text = BESIDE.replace("./secrets", str(secrets))
    beside.write_text(text.replace("docker-compose.yml", str(ROOT / "docker-compose.yml")))
    project = begin(
        *("docker-compose.yml", str(beside)),
        HANDLERS="agent.handlers:service,mine:service",
        HANDLERS_PATH=str(folder),
        SANDBOX_SCRIPT_EVERY="5",
        SIGNING_KEY_FILE=str(secrets / "signing_key"),
    )
    project.up()
    project.wait_for(lambda: "low balance" in project.compose("logs", "watch"), "one handles")
    found = project.audit()
    assert {each["name"] for each in found["services"]} == {"trading.agent", "balance.watch"}
    findings = json.loads(project.tool("fleet", "doctor", "--json"))["findings"]
    assert {each["check"] for each in findings} >= {"nodes", "rights", "retry road"}
    assert [each for each in findings if each["level"] != "ok" and not _is_pace(each)] == []
    _forge(project, (secrets / "amqp/admin").read_text().strip())

    def is_refused() -> bool:
        mine = ("list", "--handlers", "mine:service")
        return "Signature" in project.tool("replay-failed", *mine)

    project.wait_for(is_refused, "what nobody signed is failed")


def _is_pace(finding: Mapping[str, str]) -> bool:
    """Whether it is about how fast this machine's disk is today."""
    return finding["text"].startswith("A commit of the store takes")


def _forge(project: Any, password: str) -> None:
    """Publish an event as somebody who has the broker and not the key."""
    at = project.compose("port", "rabbitmq", "15672").strip()
    api = Management(f"http://admin:{password}@{at}", "amqp://127.0.0.1/")
    event_id, kind = "01ARZ3NDEKTSV4RRFFQ69G5FAV", "wallet.low_balance"
    headers = {"x-event-id": event_id, "x-event-type": kind}
    message = {
        "properties": {"headers": headers},
        "routing_key": kind,
        "payload_encoding": "string",
    }
    api.call("POST", "exchanges/%2F/pf.ingest/publish", {**message, "payload": "{}"})


def test_handlers_in_an_image(image: str, folder: Path):
    """The Dockerfile of docs/docker.md makes an image that knows the service without a folder."""
    lines = [line.strip() for line in DERIVED.splitlines() if "pip" not in line]
    assert lines[0] == "FROM flea-fleet"
    (folder / "Dockerfile").write_text("\n".join([f"FROM {image}", *lines[1:]]))
    tag = f"flea-fleet-test-mine:{uuid.uuid4().hex[:8]}"
    try:
        subprocess.run(["docker", "build", "-q", "-t", tag, folder], check=True)
        show = ["docker", "run", "--rm", "--read-only", "-e", "HANDLERS=mine:service", tag]
        shown = subprocess.run(
            [*show, "topology", "show"], check=True, capture_output=True, text=True
        )
    finally:
        subprocess.run(["docker", "image", "rm", "-f", tag], check=False)
    assert "pf.balance.watch.failed" in shown.stdout
