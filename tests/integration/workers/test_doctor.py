"""`fleet doctor` on a broker and a store that work, and with each thing broken."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fleet import clock
from fleet.amqp.admin import Admin
from fleet.broker import Management, RunningBroker
from fleet.core import canary
from fleet.doctor import clocks, roads, storing
from fleet.doctor.examine import Case, examine
from fleet.doctor.finding import Finding
from fleet.settings import is_near
from fleet.status import gather
from fleet.store import leases, replicas
from topology import names
from topology.model import Lanes
from topology.plan import plan
from topology.users import users
from workers.context import Context
from workers.registry import Service

BODY = b"left alone"
MINE = """
from workers.registry import Service
service = Service("mine")
@service.handler("a.b")
def on(ctx, payload): pass
"""


@pytest.fixture
def served(service: Service) -> Service:
    """A service with lanes and two handlers."""
    service.lanes = Lanes(partitions=2)

    @service.handler("market.tick")
    def on_tick(_: Context, __: dict[str, Any]) -> None:
        """Be done."""

    @service.handler("test.*")
    async def on_test(_: Context, __: dict[str, Any]) -> None:
        """Be done."""

    return service


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast this machine and its disk are today is not what is examined here."""
    monkeypatch.setattr(storing, "SLOW_S", 60.0)
    monkeypatch.setattr(clocks, "NOTICED_S", 60.0)
    monkeypatch.setattr(replicas, "SILENT_S", 60.0)
    monkeypatch.setattr(gather, "PATIENCE_S", 60.0)
    monkeypatch.setattr(roads, "ANSWER_S", 60.0)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes home may take its time; for roads that lead there."""
    monkeypatch.setattr(roads, "HOME_S", 60.0)


@pytest.fixture
def case(bench: Any, broker: RunningBroker, served: Service) -> Case:
    """The service on this test's virtual host."""
    return Case(
        plan=plan([served.layout()]),
        amqp_url=bench.url,
        management_url=broker.management_url,
        store_url=bench.store_url,
        longest_s={served.name: 20.0},
        prefetch=400,
        concurrency=10,
    )


def bad(findings: Sequence[Finding]) -> dict[str, str]:
    """The level of each check that is not well; the worst one."""
    found = {each.check: each.level for each in findings if each.level == "warn"}
    return found | {each.check: each.level for each in findings if each.level == "fail"}


async def at_work(bench: Any, served: Service) -> None:
    """A worker that says that it works."""
    await bench.start(served)

    async def says_so() -> bool:
        rows = await bench.store.read(replicas.every)
        return [each.pulse.state for each in rows] == ["running"]

    await bench.until(says_so)


async def led(bench: Any) -> None:
    """A bridge leads."""
    now_ms = clock.now_ms()
    await bench.store.run(lambda tx: leases.acquire(tx, "bridge:a", "b", now_ms, 600_000))


def of_the_tests(case: Case) -> set[str]:
    """What is said of a PostgreSQL without fsync, and of servers in Docker beyond this machine."""
    found = {"store", "tls"} if case.store_url.startswith("postgres") else set()
    return found if is_near(urlsplit(case.amqp_url).hostname or "") else {*found, "tls", "user"}


@pytest.mark.usefixtures("patient")
async def test_a_healthy_fleet_is_well_and_no_message_is_touched(
    bench: Any, served: Service, case: Case
):
    """Every finding is ok, the canaries are gone, and what failed before still waits."""
    await bench.lay_out(served)
    await led(bench)
    await at_work(bench, served)
    queue = names.failed(served.name)
    await bench.send(names.DLX, queue, BODY, {"x-event-id": "other"})

    findings = await examine(case)

    assert bad(findings).keys() <= of_the_tests(case), findings
    checks = {each.check for each in findings}
    assert checks >= {"version", "layout", "policies", "timeout", "nodes", "clock", "store"}
    assert checks >= {"failed road", "retry road", "replicas", "lanes", "bridge"}
    await bench.until(partial(bench.holds, queue, least=1))
    assert await bench.depth(queue) == 1
    assert (await bench.take(queue)).body == BODY
    rows = list((await bench.journal(served.name)).values())
    assert [outcome for outcome, _ in rows] == ["skipped"]
    assert await bench.depth(names.UNROUTED) == 0


@pytest.mark.usefixtures("patient")
async def test_without_workers_the_canary_waits_and_the_next_one_skips_it(
    bench: Any, served: Service, case: Case
):
    """Nobody at work is a warning; the roads are proven all the same."""
    await bench.lay_out(served)

    findings = await examine(case)

    assert bad(findings).keys() - of_the_tests(case) == {"replicas", "bridge"}
    assert [each.level for each in findings if each.check == "retry road"] == ["ok"]
    await bench.start(served)

    async def is_skipped() -> bool:
        rows = await bench.store.read(lambda tx: tx.query("SELECT outcome, reason FROM journal"))
        return bool(rows == [("skipped", canary.SKIPPED)])

    await bench.until(is_skipped)


async def test_a_failed_queue_that_is_not_bound_is_found_by_its_canary(
    bench: Any, served: Service, case: Case
):
    """What would fail goes to pf.unrouted; the canary does not stay there."""
    await bench.lay_out(served)
    queue = names.failed(served.name)
    async with await Admin.open(bench.url) as admin:
        await admin.unbind_queue(queue, names.DLX, queue, {})

    findings = await examine(case)

    assert bad(findings)["failed road"] == bad(findings)["layout"] == "fail"
    assert await bench.depth(names.UNROUTED) == 0


async def test_a_retry_road_that_does_not_lead_home_is_found_by_its_canary(
    bench: Any, served: Service, case: Case
):
    """What is delayed would go to pf.unrouted; the canary does not stay there."""
    await bench.lay_out(served)
    queue = names.work_queue(served.name)
    async with await Admin.open(bench.url) as admin:
        await admin.unbind_queue(queue, names.REDELIVER, queue, {})

    findings = await examine(case)

    road = [each for each in findings if each.check == "retry road"]
    assert [each.level for each in road] == ["fail"]
    assert names.UNROUTED in road[0].text
    assert await bench.depth(names.UNROUTED) == 0


async def test_a_policy_that_shortens_what_waits_is_named(
    bench: Any, served: Service, case: Case, management: Management, vhost: str
):
    """A message-ttl on all queues would take failed messages away."""
    await bench.lay_out(served)
    policy = {"pattern": ".*", "definition": {"message-ttl": 60_000}, "apply-to": "queues"}
    management.call("PUT", f"policies/{vhost}/short", policy)

    async def is_in_force() -> bool:
        return bad(await examine(replace(case, canaries=False))).get("policies") == "warn"

    await bench.until(is_in_force)


async def test_a_lane_without_a_consumer_is_told(bench: Any, served: Service, case: Case):
    """Workers are at work, but nobody takes one lane: its events would wait for ever."""
    await bench.lay_out(served)
    await at_work(bench, served)
    other = Service(served.name, lanes=Lanes(partitions=3), handlers=served.handlers)
    async with await Admin.open(bench.url) as admin:
        for queue in plan([other.layout()]).queues:
            await admin.declare_queue(queue.name, queue.arguments)

    findings = await examine(replace(case, plan=plan([other.layout()]), canaries=False))

    lanes = [each for each in findings if each.check == "lanes"]
    assert [(each.level, each.text[:6]) for each in lanes] == [("fail", "1 of 3")]


async def test_what_is_away_is_a_finding_and_the_rest_goes_on(
    bench: Any, served: Service, case: Case, tmp_path: Path
):
    """No broker: the store is looked at. No store: the broker is. No management API: both are."""
    await bench.lay_out(served)
    alone = replace(case, canaries=False)
    away = await examine(replace(alone, amqp_url="amqp://guest:guest@127.0.0.1:9/"))
    assert bad(away)["broker"] == "fail"
    assert "store" in {each.check for each in away}

    empty = await examine(replace(alone, store_url=f"sqlite:///{tmp_path / 'none'}"))
    assert bad(empty)["store"] == "fail"
    assert "version" in {each.check for each in empty}

    blind = await examine(replace(alone, management_url="http://127.0.0.1:9"))
    assert bad(blind)["management"] == "warn"
    assert {each.check: each.level for each in blind}["layout"] == "ok"


async def test_a_user_that_may_not_publish_is_told_so(
    bench: Any, served: Service, case: Case, management: Management, vhost: str
):
    """Who may look and nothing else: the roads are not tried, which is said."""
    await bench.lay_out(served)
    user = f"{vhost}-monitor"
    management.call("PUT", f"users/{user}", {"password": "pw", "tags": "monitoring"})
    try:
        aside = r"^pf\.(unrouted|quarantine)$"  # from 4.3 on a look takes some permission
        looks = {"configure": "^$", "write": r"^pf\.test\.", "read": aside}
        management.call("PUT", f"permissions/{vhost}/{user}", looks)
        url = bench.url.replace("guest:guest", f"{user}:pw")

        findings = await examine(replace(case, amqp_url=url))
    finally:
        management.call("DELETE", f"users/{user}")

    assert bad(findings)["roads"] == "warn"
    assert any("may not publish to" in each.text for each in findings)


async def test_a_user_that_may_do_too_much_or_too_little_is_told(
    bench: Any, served: Service, case: Case, management: Management, vhost: str
):
    """As planned nothing is said; each right too many or too few is named, and nothing was done."""
    await bench.lay_out(served)
    (planned,) = (each for each in users(case.plan) if each.name == "operator")
    rights = {each: getattr(planned, each) for each in ("configure", "write", "read")}
    name = f"{vhost}.operator"
    url = bench.url.replace("guest:guest", f"{name}:pw")
    management.call("PUT", f"users/{name}", {"password": "pw", "tags": "management"})

    async def told(**other: str) -> list[tuple[str, str]]:
        management.call("PUT", f"permissions/{vhost}/{name}", {**rights, **other})
        findings = await examine(replace(case, amqp_url=url, canaries=False))
        return [(each.level, each.text) for each in findings if each.check == "rights"]

    try:
        well = await told()
        ((more, too_much),) = await told(configure="unrouted", write=".*", read=".*")
        ((less, too_little),) = await told(write=rights["write"].replace(r"pf\.redeliver|", ""))
    finally:
        management.call("DELETE", f"users/{name}")
    assert [level for level, _ in well] == ["ok"]
    assert more == "warn"
    assert (
        "may declare and delete, publish to pf.unrouted, publish to pf.quarantine and" in too_much
    )
    assert less == "fail"
    assert f"may not publish to {names.REDELIVER}, which operator has to" in too_little
    assert [await bench.depth(each.name) for each in case.plan.queues] == [0] * len(
        case.plan.queues
    )


async def test_a_worker_does_not_start_on_a_server_that_may_forget(
    bench: Any, postgres_url: str, tmp_path: Path
):
    """With synchronous_commit off a crash could forget that an order was placed: exit code 2."""
    (tmp_path / "mine.py").write_text(MINE)
    lax = f"{postgres_url}%20-csynchronous_commit%3Doff"
    environment = {**os.environ, "AMQP_URL": bench.url, "STORE_URL": lax}
    code, _, err = await _fleet(tmp_path, environment, "worker", "--handlers", "mine:service")
    assert code == 2
    assert "synchronous_commit" in err
    assert "Traceback" not in err


async def test_the_command_says_it_as_json_and_with_its_exit_code(
    bench: Any, broker: RunningBroker, tmp_path: Path
):
    """An empty virtual host is not as planned: exit code 1, and what to do."""
    (tmp_path / "mine.py").write_text(MINE)
    environment = {
        **os.environ,
        "AMQP_URL": bench.url,
        "MANAGEMENT_URL": broker.management_url or "",
        "STORE_URL": bench.store_url,
    }
    words = ("doctor", "--handlers", "mine:service", "--json")
    code, out, err = await _fleet(tmp_path, environment, *words)

    assert (code, err) == (1, "")
    told = json.loads(out)
    assert not told["well"]
    layout = next(each for each in told["findings"] if each["check"] == "layout")
    assert layout["level"] == "fail"
    assert "fleet topology" in layout["fix"]


async def _fleet(
    folder: Path, environment: dict[str, str], *words: str
) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "fleet",
        *words,
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()
