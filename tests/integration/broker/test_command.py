"""`fleet broker` for real: it serves, and nothing of it is left, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fleet.broker import Management, RunningBroker, docker, install, ports
from fleet.broker.handshake import check
from fleet.core.errors import BrokerError

PATIENCE = 120.0


@pytest.fixture(scope="module")
def kind(broker: RunningBroker) -> str:
    """The kind of private broker that this run is about."""
    return "docker" if broker.kind in ("docker", "testcontainers") else "local"


@contextmanager
def fleet_broker(
    *words: str, err: int | None = None
) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The running command and what it printed; killed at the end, if it still runs."""
    argv = [sys.executable, "-m", "fleet", "broker", "--json", *words]
    env = without_amqp_url()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=err, text=True, env=env) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def without_amqp_url() -> dict[str, str]:
    """This environment, in which no broker is given."""
    return {key: text for key, text in os.environ.items() if key != "AMQP_URL"}


def port_of(shown: dict[str, str]) -> int:
    """The AMQP port that the command printed."""
    return urlsplit(shown["amqp_url"]).port or 0


def soon(claim: Callable[[], bool]) -> bool:
    """Whether it comes true within a generous time."""
    deadline = time.monotonic() + PATIENCE
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.1)
    return claim()


def closed(url: str) -> bool:
    """Whether nobody serves this address any more, soon."""
    at = urlsplit(url)
    return soon(lambda: ports.is_free(at.port or 0))


def processes(folder: Path) -> list[str]:
    """The servers that run out of `folder`, as `ps` shows them."""
    shown = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in shown.stdout.splitlines() if "beam" in line and str(folder) in line]


def containers(port: str) -> list[str]:
    """The containers, stopped ones too, that were given `port`."""
    published, found = "{{.HostConfig.PortBindings}}", []
    for name in docker.docker("ps", "-aq").split():
        with suppress(BrokerError):  # one of somebody else's that has gone meanwhile
            if port in docker.docker("inspect", "-f", published, name):
                found.append(name)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left(number: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C, SIGTERM and even kill -9 of its owner end the broker, and remove its data."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with fleet_broker("--kind", kind) as (process, shown):
        assert check(shown["amqp_url"]) == shown["version"]
        nodes = [json.loads(path.read_text()) for path in tmp_path.glob("*/node.json")]
        assert [node["amqp"] for node in nodes] == ([port_of(shown)] if kind == "local" else [])
        process.send_signal(number)
        assert process.wait(PATIENCE) == (-number if number == signal.SIGKILL else 0)
        assert closed(shown["amqp_url"])
        assert closed(shown["management_url"])
        assert all(closed(f"epmd://127.0.0.1:{node['epmd']}") for node in nodes)
    assert soon(lambda: not list(tmp_path.iterdir()))
    if kind == "docker":
        assert soon(lambda: not containers(str(port_of(shown))))


def test_the_end_of_its_rabbitmq_is_noticed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Killed behind the command's back: one sentence and exit code 1, and nothing is left."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with fleet_broker("--kind", kind, err=subprocess.PIPE) as (process, shown):
        if kind == "docker":
            (container,) = containers(str(port_of(shown)))
            docker.docker("kill", container)
        else:
            (pid,) = [path.read_text() for path in tmp_path.glob("*/pid")]
            os.kill(int(pid), signal.SIGKILL)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith("fleet: RabbitMQ has ended by itself")
    assert "Traceback" not in said
    assert soon(lambda: not list(tmp_path.iterdir()))


def test_data_is_used_again(tmp_path: Path):
    """With `--data` a second run finds what the first kept; meanwhile nobody else may use it."""
    if install.find() is None:
        pytest.skip("no rabbitmq-server on this machine")
    words = ("--kind", "local", "--data", str(tmp_path / "data"))
    with fleet_broker(*words) as (process, shown):
        Management(shown["management_url"], shown["amqp_url"]).create_vhost("kept")
        argv = [sys.executable, "-m", "fleet", "broker", *words]
        env = without_amqp_url()
        second = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=120, env=env
        )
        assert second.returncode == 2
        assert "Another broker uses the folder" in second.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    with fleet_broker(*words) as (process, again):
        assert again["amqp_url"] == shown["amqp_url"]
        management = Management(again["management_url"], again["amqp_url"])
        assert management.get("vhosts/kept")["name"] == "kept"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert processes(tmp_path) == []


@pytest.mark.parametrize(
    "wrong", ["amqp://guest:wr0ng-w0rd@{at}/", "amqp://nobody:wr0ng-w0rd@{at}/", "{right}no-such"]
)
def test_a_refusal_is_one_sentence(broker: RunningBroker, wrong: str):
    """A wrong user, password or virtual host is exit code 2 and one line without the password."""
    at = broker.amqp_url.rpartition("@")[2].rstrip("/")
    url = wrong.format(at=at, right=broker.amqp_url)
    argv = [sys.executable, "-m", "fleet", "broker"]
    env = os.environ | {"AMQP_URL": url, "FLEET_BROKER": ""}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env, timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "wr0ng" not in done.stderr


def test_a_given_broker_is_left_alone(broker: RunningBroker):
    """AMQP_URL's broker is shown without its password, and serves on when the command has ended."""
    argv = [sys.executable, "-m", "fleet", "broker", "--json"]
    given = {"AMQP_URL": broker.amqp_url, "MANAGEMENT_URL": broker.management_url or ""}
    env = os.environ | given | {"FLEET_BROKER": ""}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        shown = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    assert shown["kind"] == "given"
    assert "guest:guest" not in shown["amqp_url"]
    assert check(broker.amqp_url) == shown["version"]
