"""Each part of a fleet works as its own user, which may do nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiormq
import pytest
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused

from fleet.amqp.looks import open_looks
from fleet.broker import Management, RunningBroker
from sandbox.server import Sandbox
from sandbox.settings import DEMO_KEY, load
from tests.waiting import until
from topology import names

ROOT = Path(__file__).parents[3]
MODULE = """
from fleet.core.errors import DataError, NetworkError
from fleet.core.retry import RetryPolicy
from topology.model import Lanes
from workers.registry import Service

service = Service("mine", lanes=Lanes(partitions=2))
other = Service("other")
once_more = RetryPolicy(attempts=2, base=0.01, cap=0.05)


@service.handler("market.tick")
def on_tick(ctx, payload):
    pass


@service.handler("wallet.*", retry=once_more)
def on_wallet(ctx, payload):
    if not ctx.is_replay:
        raise NetworkError("away")


@service.handler("escrow.*")
def on_escrow(ctx, payload):
    ctx.emit("alert.raised", {"text": "hear"}, key="a")


@service.handler("alert.raised")
@other.handler("alert.raised")
def on_alert(ctx, payload):
    pass
"""


class Fleet:
    """A fleet's commands in one folder, each run as the user of one role."""

    def __init__(self, broker: RunningBroker, vhost: str, folder: Path) -> None:
        self.prefix = f"{vhost}."
        self.folder = folder
        self.stream_url = ""
        self._admin = broker.amqp_url
        self._management = broker.management_url or ""
        self._vhost = vhost
        (folder / "mine.py").write_text(MODULE)

    def url(self, role: str) -> str:
        """The broker's address for the user of this role."""
        address = self._admin.rpartition("@")[2].partition("/")[0]
        user = self.prefix + role
        password = (self.folder / "secrets" / user).read_text().strip()
        return f"amqp://{user}:{password}@{address}/{self._vhost}"

    def start(self, role: str, *command: str, module: str = "fleet") -> subprocess.Popen[str]:
        """Start a command as the user of a role, or as the administrator."""
        admin = f"{self._admin.rpartition('/')[0]}/{self._vhost}"
        return subprocess.Popen(
            [sys.executable, "-m", module, *command],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "AMQP_URL": self.url(role) if role else admin,
                "MANAGEMENT_URL": self._management,
                "STORE_URL": f"sqlite:///{self.folder}/fleet.sqlite3",
                "PF_STREAM_URL": self.stream_url,
                "PF_AGENT_ID": "pf_agent_sandbox",
                "PF_AGENT_KEY": DEMO_KEY,
                "PF_PARTITIONS": "2",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    async def run(self, role: str, *command: str, code: int = 0, module: str = "fleet") -> str:
        """Run a command to its end; what it says."""
        process = self.start(role, *command, module=module)
        out, err = await asyncio.to_thread(process.communicate, timeout=120)
        assert process.returncode == code, (process.returncode, out, err)
        return err if code == 2 else out

    @asynccontextmanager
    async def running(self, role: str, *command: str) -> AsyncIterator[None]:
        """A command while this lasts; a stop request must end it well."""
        process = self.start(role, *command)
        # Read from the start: who writes into a full pipe stands still.
        reading = asyncio.create_task(asyncio.to_thread(process.communicate))
        try:
            yield
            process.terminate()
            out, err = await asyncio.wait_for(asyncio.shield(reading), 120)
            assert process.returncode == 0, (out, err)
        finally:
            process.kill()
            await reading


@pytest.fixture
def fleet(
    broker: RunningBroker, management: Management, vhost: str, tmp_path: Path
) -> Iterator[Fleet]:
    """A fleet whose users are removed in the end."""
    own = Fleet(broker, vhost, tmp_path)
    yield own
    for user in management.get("users"):
        if user["name"].startswith(own.prefix):
            management.call("DELETE", f"users/{user['name']}")


@pytest.fixture
async def laid_out(fleet: Fleet) -> Fleet:
    """The fleet with its users, its layout applied by the user for that."""
    await fleet.run("", *users(fleet, "mine:service", "--apply"))
    await fleet.run("topology", "topology", "apply", "--handlers", "mine:service")
    return fleet


def users(fleet: Fleet, handlers: str, *more: str) -> tuple[str, ...]:
    """`fleet topology users` for these services, with passwords made up."""
    folder = str(fleet.folder / "secrets")
    secret = ("--passwords", folder, "--generate", "--prefix", fleet.prefix)
    return ("topology", "users", "--handlers", handlers, *secret, *more)


async def test_each_part_works_as_its_own_user(laid_out: Fleet):
    """From the stream to what failed and its replay, nobody needs more than its user may."""
    fleet, of = laid_out, ("--handlers", "mine:service")
    assert "as planned" in await fleet.run("topology", "topology", "check", *of)
    checked = await fleet.run("", "topology", "check", *of, "--users", "--prefix", fleet.prefix)
    assert "as planned" in checked
    events = load(port=0, speed="max", events=400, script_every=20, wait=True)
    async with Sandbox(events) as sandbox, open_looks(fleet.url("monitor")) as looks:
        fleet.stream_url = sandbox.url.replace("http", "ws", 1) + "/api/stream"

        async def has_failed() -> bool:
            return (await looks.depths(["pf.mine.failed"]))["pf.mine.failed"].ready > 0

        async with fleet.running("worker", "worker", *of), fleet.running("bridge", "publisher"):
            await until(has_failed)
            failed = json.loads(await failing(fleet, "list", "--json"))
            replayed = json.loads(await failing(fleet, "run", "--yes", "--json"))
            assert replayed["sent"] > 0, failed
            await until(lambda: _is_done(fleet))
        assert json.loads(await fleet.run("operator", "audit", *of, "--json"))["unaccounted"] == []


async def test_users_who_may_do_more_than_they_need_are_found(
    laid_out: Fleet, management: Management, vhost: str
):
    """One of the fleet's own whose pattern grew, and one that nobody planned."""
    worker, eve = f"{laid_out.prefix}worker", f"{laid_out.prefix}eve"
    management.call("PUT", f"users/{eve}", {"password": "eve", "tags": ""})
    for user, may in ((worker, {"read": ".*"}), (eve, {"write": "ingest"})):
        rights = {"configure": "^$", "write": "^$", "read": "^$", **may}
        management.call("PUT", f"permissions/{vhost}/{user}", rights)
    words = ("check", "--handlers", "mine:service", "--users", "--prefix", laid_out.prefix)
    said = await laid_out.run("", "topology", *words, code=1)
    assert f'different: user {worker}: read is ".*", planned' in said
    assert f"superfluous: user {eve}: it may write (left to you)" in said


async def test_who_only_counts_sees_how_the_fleet_does(laid_out: Fleet):
    """Status as `monitor`; pf.unrouted and pf.quarantine, which are exchanges too, up to 4.2.5."""
    said: dict[str, Any] = {}

    async def speaks() -> bool:
        said.update(json.loads(await laid_out.run("monitor", "status", "--once", "--json")))
        return bool(said["broker"] == "")

    await until(speaks)
    (service,) = said["services"]
    assert (service["queues"]["work"], service["queues"]["failed"]) == (0, 0)
    assert said["shared"]["unrouted"] in {0, None}
    assert said["shared"]["quarantine"] == said["shared"]["unrouted"]


async def failing(fleet: Fleet, command: str, *more: str) -> str:
    """`replay-failed` as the operator."""
    arguments = (command, "--handlers", "mine:service", *more)
    return await fleet.run("operator", *arguments, module="fleet.cli.failed")


async def _is_done(fleet: Fleet) -> bool:
    """Whether all that came is accounted for: what is in hand for long is not yet."""
    process = fleet.start("operator", "audit", "--handlers", "mine:service", "--json")
    out, err = await asyncio.to_thread(process.communicate, timeout=120)
    assert process.returncode in (0, 1), err
    said = json.loads(out)
    return bool(said["done"] and not said["unaccounted"])


WORK, FAILED = "pf.mine", "pf.mine.failed"
DLX = {"x-queue-type": "quorum", "x-dead-letter-exchange": names.DLX}


def publish(exchange: str, key: str = "wallet.x") -> Callable[[AbstractChannel], Awaitable[Any]]:
    """Publish, and wait for the broker's word on it."""
    return lambda channel: channel.basic_publish(b"{}", exchange=exchange, routing_key=key)


def consume(queue: str) -> Callable[[AbstractChannel], Awaitable[Any]]:
    """Take a message."""
    return lambda channel: channel.basic_get(queue)


def purge(queue: str) -> Callable[[AbstractChannel], Awaitable[Any]]:
    """Empty a queue."""
    return lambda channel: channel.queue_purge(queue)


def delete(queue: str) -> Callable[[AbstractChannel], Awaitable[Any]]:
    """Delete a queue."""
    return lambda channel: channel.queue_delete(queue)


def declare(queue: str) -> Callable[[AbstractChannel], Awaitable[Any]]:
    """Declare a queue."""
    return lambda channel: channel.queue_declare(queue, durable=True, arguments=DLX)


def bind(queue: str) -> Callable[[AbstractChannel], Awaitable[Any]]:
    """Bind a queue."""
    return lambda channel: channel.queue_bind(queue, names.EVENTS, "#")


BY_NOBODY = {
    "declare": declare("pf.more"),
    "delete": delete(WORK),
    "delete-failed": delete(FAILED),
    "bind": bind(WORK),
    "publish-to-the-default-exchange": publish("", WORK),
    "publish-past-the-lanes": publish("pf.mine.ticks"),
}
REFUSED = {
    "bridge": {
        **BY_NOBODY,
        "publish-a-replay": publish(names.REDELIVER, WORK),
        "publish-a-failure": publish(names.DLX, FAILED),
        "publish-past-the-log": publish(names.EVENTS),
        "consume": consume(WORK),
        "consume-failed": consume(FAILED),
        "purge": purge(WORK),
    },
    "worker": {
        **BY_NOBODY,
        "publish-past-the-log": publish(names.EVENTS),
        "publish-to-quarantine": publish(names.QUARANTINE),
        "consume-failed": consume(FAILED),
        "consume-a-bucket": consume("pf.mine.retry.00"),
        "consume-the-log": consume(names.LOG),
        "purge-failed": purge(FAILED),
        "purge-unrouted": purge(names.UNROUTED),
    },
    "operator": {
        **BY_NOBODY,
        "publish-an-event": publish(names.INGEST),
        "consume": consume(WORK),
        "consume-a-lane": consume("pf.mine.ticks.0"),
        "purge": purge(WORK),
    },
    "monitor": {
        **BY_NOBODY,
        "publish-an-event": publish(names.INGEST),
        "consume": consume(WORK),
        "consume-failed": consume(FAILED),
        "consume-the-log": consume(names.LOG),
        "purge-failed": purge(FAILED),
    },
    "topology": {
        "publish-to-the-default-exchange": publish("", WORK),
        "declare-elsewhere": declare("other.queue"),
        "publish-elsewhere": publish("amq.topic"),
    },
}


async def test_each_user_is_refused_what_it_does_not_need(laid_out: Fleet):
    """Publishing elsewhere, declaring, deleting, purging and others' queues are refused."""
    allowed: list[str] = []
    for role, attempts in REFUSED.items():
        connection = await aiormq.connect(laid_out.url(role))
        for name, attempt in attempts.items():
            channel = await connection.channel()
            try:
                await attempt(channel)
                allowed.append(f"{role} may {name}")
            except ChannelAccessRefused:
                pass
        await connection.close()
    assert allowed == []


async def test_one_service_s_workers_may_not_take_another_s_work(fleet: Fleet):
    """Where there are several services each has a user of its own, with its own queues only."""
    both = "mine:service,mine:other"
    await fleet.run("", *users(fleet, both, "--apply"))
    await fleet.run("topology", "topology", "apply", "--handlers", both)
    said = await fleet.run("worker.other", "worker", "--handlers", "mine:service", code=2)
    may_not = f"'{fleet.prefix}worker.other' may not read from the queue pf.mine"
    assert f"fleet: The broker's user {may_not}" in said.splitlines()[-1]
    async with open_looks(fleet.url("monitor")) as looks:

        async def consumes() -> bool:
            return (await looks.depths(["pf.other"]))["pf.other"].consumers == 1

        async with fleet.running("worker.other", "worker", "--handlers", "mine:other"):
            await until(consumes)


@pytest.mark.parametrize(
    ("role", "command", "may_not"),
    [
        ("worker", ("failed", "list"), "may not read from the queue pf.mine.failed"),
        ("worker", ("topology", "apply"), "may not declare the exchange pf.unrouted"),
        ("monitor", ("audit",), "may not read from the queue pf.events.log"),
        ("bridge", ("failed", "list"), "may not read from the queue pf.mine.failed"),
    ],
)
async def test_a_command_with_the_wrong_user_says_so(
    laid_out: Fleet, role: str, command: tuple[str, ...], may_not: str
):
    """Exit code 2 and one sentence that names the user and what it may not do."""
    connection = await aiormq.connect(laid_out.url("worker"))
    await publish(names.DLX, FAILED)(await connection.channel())
    await connection.close()
    said = await laid_out.run(role, *command, "--handlers", "mine:service", code=2)
    assert said.count("\n") == 1
    assert f"ser '{laid_out.prefix}{role}' {may_not}; give it the permission" in said


async def test_a_bridge_with_the_wrong_user_says_so(laid_out: Fleet):
    """It ends with exit code 2, and the cursor has not moved past what was refused."""
    async with Sandbox(load(port=0, speed="max", events=50, wait=True)) as sandbox:
        laid_out.stream_url = sandbox.url.replace("http", "ws", 1) + "/api/stream"
        process = laid_out.start("monitor", "publisher")
        _, err = await asyncio.to_thread(process.communicate, timeout=120)
    assert process.returncode == 2, err
    assert err.splitlines()[-1].startswith(
        f"fleet: The broker's user '{laid_out.prefix}monitor' may not publish to the exchange"
        " pf.ingest; give it the permission"
    )
