"""Plan against broker: apply, check, export, and the sentences where it does not go."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from aio_pika.abc import AbstractChannel

from fleet.amqp.admin import Admin, Inequivalent
from fleet.broker import Management, RunningBroker
from fleet.core.errors import BrokerError, TopologyError
from fleet.store import bindings, open_store
from topology.apply import apply
from topology.check import Difference, compare, probe
from topology.export import definitions, with_user
from topology.management import Broker, look, management_url
from topology.model import Plan, ServiceLayout
from topology.plan import plan

DEADLINE_S = 60
MODULE = """
from topology.model import ServiceLayout

class Service:
    def layout(self):
        return ServiceLayout("agent", ("wallet.*",), buckets=1)

service = Service()
"""


@pytest.fixture
def management_of(broker: RunningBroker) -> str:
    """The management API, with its user."""
    url = management_url(broker.amqp_url, broker.management_url)
    assert url
    return url


async def settled(plan_: Plan, url: str, vhost: str, count: int) -> list[Difference]:
    """The differences once there are `count` of them: the API may lag behind a moment."""
    deadline = time.monotonic() + DEADLINE_S
    while len(found := compare(plan_, await look(url, vhost))) != count:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.05)
    return found


async def test_applied_is_as_planned_and_again_changes_nothing(
    layout: Plan, admin: Admin, vhost: str, management_of: str
):
    """After apply no difference is seen either way; a second apply declares the same."""
    first = await apply(layout, admin)
    assert await settled(layout, management_of, vhost, 0) == []
    assert await probe(layout, admin) == []
    assert await apply(layout, admin) == first
    assert first.declared == len([*layout])
    assert first.patterns == {
        "agent": ("market.tick", "order.*", "wallet.*"),
        "risk": ("market.tick", "wallet.*"),
    }


async def test_classic_queues_are_taken_too(admin: Admin, vhost: str, management_of: str):
    """The layout for benchmarks is accepted by every broker version."""
    classic = plan([ServiceLayout("agent", ("*",), buckets=1)], queue_type="classic")
    await apply(classic, admin)
    assert await settled(classic, management_of, vhost, 0) == []


async def test_each_difference_is_seen_through_the_management_api(
    layout: Plan, channel: AbstractChannel, vhost: str, management_of: str
):
    """A deleted queue, a lost binding and one too many are each a line."""
    await channel.queue_delete("pf.unrouted")
    work = await channel.get_queue("pf.risk", ensure=False)
    await work.unbind("pf.events", "wallet.#")
    await work.bind("pf.events", "job.#")
    found = await settled(layout, management_of, vhost, 4)
    assert [str(each) for each in found] == [
        "missing: queue pf.unrouted",
        "missing: binding pf.events -> queue pf.risk on wallet.#",
        "missing: binding pf.unrouted -> queue pf.unrouted",
        "superfluous: binding pf.events -> queue pf.risk on job.#",
    ]


async def test_amqp_alone_sees_what_is_missing_and_what_differs(
    layout: Plan, channel: AbstractChannel, admin: Admin
):
    """Probing names the first argument that differs, and creates nothing that is missing."""
    await channel.queue_delete("pf.unrouted")
    await channel.queue_delete("pf.risk")
    await admin.declare_queue("pf.risk", {"x-queue-type": "quorum", "x-max-length": 7})
    for _ in range(2):
        first, second = await probe(layout, admin)
        assert str(first) == "missing: queue pf.unrouted"
        assert str(second).startswith("different: queue pf.risk: x-")


async def test_another_value_is_named_with_what_to_do(layout: Plan, admin: Admin):
    """Apply stops at what is there with another value: object, argument, both values, advice."""
    await admin.declare_queue("pf.unrouted", {"x-queue-type": "quorum", "x-delivery-limit": 7})
    with pytest.raises(TopologyError, match=r"pf.unrouted has x-.* planned; run `fleet"):
        await apply(layout, admin)
    with pytest.raises(Inequivalent) as caught:
        await admin.declare_queue("pf.unrouted", {"x-queue-type": "quorum", "x-delivery-limit": 8})
    assert (caught.value.argument, caught.value.planned, caught.value.found) == (
        "x-delivery-limit",
        "8",
        "7",
    )


async def test_another_exchange_type_is_named(layout: Plan, admin: Admin):
    """An exchange of another type is found before anything is bound to it."""
    await admin.declare_exchange("pf.events", "fanout", {"alternate-exchange": "pf.unrouted"})
    with pytest.raises(TopologyError, match=r"exchange pf.events has type = fanout .* topic is"):
        await apply(layout, admin)


async def test_the_admin_goes_on_after_a_refusal(admin: Admin):
    """A 406 closes a channel, not the way to the broker."""
    await admin.declare_exchange("one", "fanout", {})
    with pytest.raises(Inequivalent):
        await admin.declare_exchange("one", "topic", {})
    assert not await admin.exists("queue", "two")
    assert await admin.exists("exchange", "one")


async def test_exported_definitions_make_the_planned_broker(
    layout: Plan, admin: Admin, vhost: str, management: Management, management_of: str
):
    """Loaded, the export is what apply would have made, to the last argument's type."""
    management.call("POST", "definitions", definitions(layout, vhost))
    assert await settled(layout, management_of, vhost, 0) == []
    assert await probe(layout, admin) == []
    await apply(layout, admin)


@pytest.fixture
def user(management: Management) -> Iterator[str]:
    """A user's name for this test alone; the user is removed."""
    name = f"user-{uuid.uuid4().hex[:12]}"
    yield name
    management.call("DELETE", f"users/{name}")


async def test_an_exported_user_can_come_in(
    layout: Plan, vhost: str, user: str, broker: RunningBroker, management: Management
):
    """The hashed password of `export --user` is the one the user knows, with every permission."""
    exported = with_user(definitions(layout, vhost), user, "s@crt")
    management.call("POST", "definitions", exported)
    async with await Admin.open(_as(broker, user, vhost)) as own:
        await apply(layout, own)


async def test_without_permission_to_declare_a_probe_says_what_it_saw(
    layout: Plan, vhost: str, user: str, broker: RunningBroker, management: Management
):
    """A worker's user sees what is missing; what it may not compare is `not verified`."""
    exported = with_user(definitions(layout, vhost), user, "s@crt")
    exported["permissions"][0]["configure"] = "^$"
    exported["queues"] = [each for each in exported["queues"] if each["name"] != "pf.risk"]
    exported["bindings"] = []
    management.call("POST", "definitions", exported)
    async with await Admin.open(_as(broker, user, vhost)) as own:
        found = await probe(layout, own)
        with pytest.raises(BrokerError, match=r"may not declare the exchange pf\.unrouted"):
            await apply(layout, own)
    assert [each.name for each in found if each.kind == "missing"] == ["pf.risk"]
    assert {each.kind for each in found} == {"missing", "not verified"}


def _as(broker: RunningBroker, user: str, vhost: str) -> str:
    address = broker.amqp_url.rpartition("@")[2].rpartition("/")[0]
    return f"amqp://{user}:s%40crt@{address}/{vhost}"


async def test_a_virtual_host_with_an_odd_name_can_be_looked_at(
    management: Management, vhost: str, management_of: str
):
    """Slash, percent and space in a name do not lead to another virtual host."""
    odd = f"{vhost}/a%2F b"
    management.create_vhost(odd)
    try:
        found = await look(management_of, odd)
    finally:
        management.delete_vhost(odd)
    assert isinstance(found, Broker)
    assert found.queues == ()


async def test_a_management_api_that_does_not_know_us_is_one_sentence(
    management_of: str, vhost: str
):
    """A wrong password and a missing virtual host say what to correct, and no secret."""
    wrong = management_of.replace("guest:guest@", "guest:hunter2@")
    with pytest.raises(BrokerError, match="correct MANAGEMENT_URL") as caught:
        await look(wrong, vhost)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(BrokerError, match="no such virtual host"):
        await look(management_of, f"{vhost}-not")


def fleet(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `fleet topology` as a user does."""
    keep = {key: value for key, value in os.environ.items() if not key.endswith("_URL")}
    return subprocess.run(
        [sys.executable, "-m", "fleet", "topology", *arguments, "--handlers", "mine:service"],
        env={**keep, **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_tells_by_its_exit_code(broker: RunningBroker, amqp_url: str, tmp_path: Path):
    """Check is 1 before apply and 0 after; without the management API the bindings are unseen."""
    (tmp_path / "mine.py").write_text(MODULE)
    env = {"AMQP_URL": amqp_url, "MANAGEMENT_URL": broker.management_url or ""}
    before = fleet("check", "--json", cwd=tmp_path, **env)
    assert before.returncode == 1
    assert {each["kind"] for each in json.loads(before.stdout)["differences"]} == {"missing"}
    applied = fleet("apply", "--json", cwd=tmp_path, **env)
    assert json.loads(applied.stdout)["patterns"] == {"agent": ["wallet.*"]}
    after = fleet("check", cwd=tmp_path, **env)
    assert (after.returncode, after.stdout) == (0, "The broker is as planned.\n")
    amqp_only = fleet("check", "--amqp-only", cwd=tmp_path, AMQP_URL=amqp_url)
    assert amqp_only.returncode == 0
    assert [each.stderr for each in (before, applied, after, amqp_only)] == [""] * 4


@pytest.mark.parametrize("command", ["apply", "check"])
@pytest.mark.parametrize(
    "url",
    [
        "amqp://guest:hunter2@127.0.0.1:1/",
        "amqp://guest:hunter2@no-such-host.invalid/",
        "http://guest:hunter2@127.0.0.1/",
        "amqp://guest:hunter2@127.0.0.1:99999/",
        "amqp://guest:hunter2@[::1/",
    ],
)
def test_a_broker_that_is_not_there_is_one_line(command: str, url: str, tmp_path: Path):
    """Exit code 2, one sentence, no traceback, no password."""
    (tmp_path / "mine.py").write_text(MODULE)
    _refused(fleet(command, cwd=tmp_path, AMQP_URL=url))


@pytest.mark.parametrize("change", ["password", "vhost", "tls", "port"])
def test_a_broker_that_refuses_is_one_line(
    broker: RunningBroker, amqp_url: str, change: str, tmp_path: Path
):
    """A wrong password, virtual host, scheme or port is one sentence and exit code 2."""
    (tmp_path / "mine.py").write_text(MODULE)
    management = broker.management_url or ""
    urls = {
        "password": amqp_url.replace("guest:guest@", "guest:hunter2@"),
        "vhost": f"{amqp_url}{quote('/not')}",
        "tls": amqp_url.replace("amqp://", "amqps://"),
        "port": f"amqp://guest:guest@{management.removeprefix('http://')}/",
    }
    _refused(fleet("apply", cwd=tmp_path, AMQP_URL=urls[change]))


def test_check_blames_the_user_of_amqp_first(broker: RunningBroker, amqp_url: str, tmp_path: Path):
    """With a good MANAGEMENT_URL and a wrong AMQP password, the sentence names AMQP_URL."""
    (tmp_path / "mine.py").write_text(MODULE)
    wrong = amqp_url.replace("guest:guest@", "guest:hunter2@")
    done = fleet("check", cwd=tmp_path, AMQP_URL=wrong, MANAGEMENT_URL=broker.management_url or "")
    _refused(done)
    assert (
        "refuses user 'guest' and its password; correct AMQP_URL, or AMQP_PASSWORD" in done.stderr
    )


async def test_apply_records_how_many_lanes_there_are(amqp_url: str, tmp_path: Path):
    """Bridge and workers compare PF_PARTITIONS with what is in the store; apply changes it not."""
    lanes = MODULE.replace("buckets=1", "buckets=1, lanes=Lanes(partitions=3)")
    (tmp_path / "mine.py").write_text(f"from topology.model import Lanes\n{lanes}")
    done = fleet("apply", cwd=tmp_path, AMQP_URL=amqp_url)
    assert done.returncode == 0, done.stderr
    more = lanes.replace("partitions=3", "partitions=4")
    (tmp_path / "mine.py").write_text(f"from topology.model import Lanes\n{more}")
    refused = fleet("apply", cwd=tmp_path, AMQP_URL=amqp_url)
    _refused(refused)
    assert "agent has 3 lanes, and 4 are planned; run `fleet topology migrate`" in refused.stderr
    store = open_store(f"sqlite:///{tmp_path}/.fleet/fleet.sqlite3")
    await store.open()
    try:
        assert await store.read(bindings.lane_counts) == {"agent": 3}
    finally:
        await store.close()


def _refused(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fleet: ")
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr
