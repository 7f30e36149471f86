"""What a private node is started with."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fleet.broker import ports
from fleet.broker.config import ADVANCED, Node

ROOT = Path(__file__).parents[3]


def test_a_node_is_found_again(tmp_path: Path):
    """The node of a folder keeps its name and, while they are free, its ports."""
    node = Node.new()
    node.write(tmp_path)
    assert Node.of(tmp_path) == node


def test_a_taken_port_is_given_up(tmp_path: Path):
    """Where somebody else listens now, the node moves and keeps its name, which its data needs."""
    node = Node.new()
    node.write(tmp_path)
    with socket.create_server(("127.0.0.1", node.amqp)):
        moved = Node.of(tmp_path)
    assert moved.name == node.name
    assert moved.amqp != node.amqp


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": 1, "odd": 2}', "\x00"])
def test_garbage_is_a_new_node(tmp_path: Path, text: str):
    """A spoiled node file is no reason to stop."""
    (tmp_path / "node.json").write_text(text)
    assert Node.of(tmp_path).name.startswith("fleet-")


def test_every_listener_is_local(tmp_path: Path):
    """Nothing of a private node can be reached from outside the machine."""
    node = Node.new()
    node.write(tmp_path)
    conf = (tmp_path / "rabbitmq.conf").read_text()
    assert f"listeners.tcp.1 = 127.0.0.1:{node.amqp}\n" in conf
    assert "management.tcp.ip = 127.0.0.1\n" in conf
    assert "prometheus.tcp.ip = 127.0.0.1\n" in conf
    assert node.environment(tmp_path)["ERL_EPMD_ADDRESS"] == "127.0.0.1"


def test_cookie_is_private_and_lasting(tmp_path: Path):
    """The cookie opens the node to who has it: only the owner reads it, and it stays the same."""
    Node.new().write(tmp_path)
    cookie = tmp_path / ".erlang.cookie"
    before = cookie.read_text()
    Node.of(tmp_path).write(tmp_path)
    assert cookie.read_text() == before
    assert cookie.stat().st_mode & 0o077 == 0


def test_production_has_the_same_timer():
    """The file to deploy says what every private broker is tested with."""
    assert (ROOT / "deploy/rabbitmq/advanced.config").read_text() == ADVANCED


def test_free_ports_are_different_and_not_a_clients():
    """Ports differ, and lie below those that a client's side of a connection may get."""
    found = ports.free(20)
    assert len(set(found)) == 20
    assert all(20000 <= port < 32768 for port in found)


def test_a_port_in_use_is_not_free():
    """A port that somebody listens on is taken."""
    (port,) = ports.free(1)
    with socket.create_server(("127.0.0.1", port)):
        assert not ports.is_free(port)
