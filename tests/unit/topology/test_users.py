"""Users and their passwords, without a broker."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet.cli.topology import command
from fleet.core.errors import SettingsError
from topology import passwords
from topology.check import compare_users, strangers
from topology.export import definitions, with_users
from topology.management import Access
from topology.model import Lanes, ServiceLayout
from topology.plan import plan
from topology.users import User, users

AGENT = ServiceLayout("trading.agent", ("wallet.*",), lanes=Lanes(partitions=3))
RISK = ServiceLayout("risk", ("market.tick",))


def named(name: str, *services: ServiceLayout) -> User:
    """The user of this name."""
    return next(user for user in users(plan(services)) if user.name == name)


def test_a_worker_reads_its_own_queues_and_no_other():
    """Its work queue and its lanes, however many; not buckets, failed queue or a longer name."""
    read = re.compile(named("worker", AGENT).read)
    assert read.search("pf.trading.agent")
    assert read.search("pf.trading.agent.ticks.255")
    for other in (
        "pf.trading.agent.failed",
        "pf.trading.agent.retry.00",
        "pf.trading.agent.ticks",
        "pf.trading.agent2",
        "pf.trading",
        "pf.trading-agent",
    ):
        assert not read.search(other)


def test_several_services_have_a_worker_s_user_each():
    """One is called worker; with two, each name says whose it is, and neither reads the other's."""
    both = [user.name for user in users(plan([AGENT, RISK]))]
    assert [name for name in both if name.startswith("worker")] == [
        "worker.trading.agent",
        "worker.risk",
    ]
    assert not re.search(named("worker.risk", AGENT, RISK).read, "pf.trading.agent")


def test_only_the_topology_s_user_may_declare():
    """Everybody else's pattern to configure matches no name, the empty one included."""
    for user in users(plan([AGENT, RISK])):
        may = [name for name in ("", "pf.risk", "pf.events") if re.search(user.configure, name)]
        assert bool(may) == (user.name == "topology") or may == [""]


def test_generated_passwords_are_for_their_owner_alone(tmp_path: Path):
    """A file for each user that others cannot read; what is there stays, again the same."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "bridge").write_text("long enough\n")
    made = passwords.read(folder, ["bridge", "worker"], generate=True)
    assert made["bridge"] == "long enough"
    assert re.fullmatch(r"[A-Za-z0-9_-]{32}", made["worker"])
    assert stat.S_IMODE((folder / "worker").stat().st_mode) == 0o600
    assert passwords.read(folder, ["bridge", "worker"]) == made


def test_a_missing_or_bad_password_is_named_without_its_value(tmp_path: Path):
    """The users without a file, or the file that holds none, and what to do."""
    with pytest.raises(SettingsError, match=r"no password for bridge, worker in .* --generate"):
        passwords.read(tmp_path, ["bridge", "worker"])
    (tmp_path / "bridge").write_text("short")
    with pytest.raises(SettingsError, match=r"bridge holds no password: write 8 to") as caught:
        passwords.read(tmp_path, ["bridge"])
    assert "short" not in str(caught.value)
    (tmp_path / "worker").write_bytes(b"\xff\xfe not text")
    with pytest.raises(SettingsError, match="worker: no text"):
        passwords.read(tmp_path, ["worker"])


def test_exported_users_have_salted_hashes(tmp_path: Path):
    """RabbitMQ's own form: 4 bytes of salt, then SHA-256 of them and the password."""
    layout = plan([AGENT])
    everybody = users(layout)
    known = passwords.read(tmp_path, (user.name for user in everybody), generate=True)
    exported = with_users(definitions(layout), everybody, known)
    for user in exported["users"]:
        stored = base64.b64decode(user["password_hash"])
        password = known[user["name"]].encode()
        assert stored[4:] == hashlib.sha256(stored[:4] + password).digest()
    assert len({user["password_hash"][:5] for user in exported["users"]}) == len(everybody)
    assert {each["user"] for each in exported["permissions"]} == {user.name for user in everybody}


def test_the_command_prints_no_password(tmp_path: Path):
    """What is generated is in the files, and only its hash in the output."""
    folder = str(tmp_path / "secrets")
    said = CliRunner().invoke(command, ["export", "--users", folder, "--generate"])
    assert said.exit_code == 0
    for file in (tmp_path / "secrets").iterdir():
        assert file.read_text().strip() not in said.output
    shown = CliRunner().invoke(command, ["users", "--json", "--prefix", "one."])
    names = [user["name"] for user in json.loads(shown.output)["users"]]
    assert names == ["one.topology", "one.bridge", "one.worker", "one.operator", "one.monitor"]


def test_a_user_who_may_do_more_or_less_is_a_difference():
    """Missing, another tag, another pattern, no permission at all: a line each."""
    everybody = users(plan([RISK]))
    tags = {user.name: user.tag for user in everybody}
    granted = {
        user.name: {"configure": user.configure, "write": user.write, "read": user.read}
        for user in everybody
    }
    assert list(compare_users(everybody, Access(tags, granted))) == []
    del tags["monitor"]
    tags["bridge"] = "administrator"
    granted["bridge"] = {**granted["bridge"], "read": ".*"}
    del granted["operator"]
    found = [str(each) for each in compare_users(everybody, Access(tags, granted))]
    assert found[:2] == [
        'different: user bridge: tags is "administrator", planned ""',
        'different: user bridge: read is ".*", planned "^$"',
    ]
    assert found[-1] == "missing: user monitor: counts, never a message"
    assert sum("user operator" in line for line in found) == 3


def test_a_prefix_is_in_front_of_every_name():
    """Nothing else changes with it."""
    plain = users(plan([RISK]))
    assert users(plan([RISK]), "x.") == tuple(replace(u, name=f"x.{u.name}") for u in plain)


def test_who_is_none_of_the_fleet_s_users_and_may_do_something_is_named():
    """A user that somebody made by hand; not administrators, nor who may do nothing with ours."""
    layout = plan([RISK])
    nothing = {"configure": "", "write": "^$", "read": "^other$"}
    granted = {
        "worker": {**nothing, "read": ".*"},
        "admin": {"configure": ".*", "write": ".*", "read": ".*"},
        "ada": {**nothing, "read": "risk"},
        "bob": {**nothing, "write": r"^pf\.(*ANY)"},
        "eve": nothing,
    }
    access = Access({**dict.fromkeys(granted, ""), "admin": "administrator"}, granted)
    assert [str(each) for each in strangers(layout, users(layout), access)] == [
        "superfluous: user ada: it may read",
        "superfluous: user bob: it may write",
    ]
