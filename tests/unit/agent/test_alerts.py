"""Alerts: told once an hour, to each sink by itself."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agent.alerting.handlers import Alerting
from agent.alerting.settings import AlertSettings
from agent.alerting.sinks import open_sinks
from fleet.core.alerts import KINDS, WINDOW_MS, alert_event
from fleet.core.decision import Ack, Fail, Postpone, Retry
from fleet.core.errors import SettingsError
from fleet.core.events import read_event, write_event
from fleet.store import alerts
from fleet.telemetry import metrics
from tests.waiting import until

AGENT = "pf_agent_sandbox"
DOCUMENT = Path(__file__).parents[3] / "docs" / "alerts.md"


class Hook:
    """A webhook that answers as told and keeps what came."""

    def __init__(self) -> None:
        self.status = 200
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        """Keep what was posted."""
        self.got.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status)


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    """A webhook on a free port."""
    made, app = Hook(), web.Application()
    app.router.add_post("/hook", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


async def place_with(office: Any, settings: AlertSettings, sinks: Any) -> Any:
    """An office whose alerts go to these sinks."""
    place = await office()
    object.__setattr__(place.desk, "alerting", Alerting(settings, sinks))
    return place


def test_alerts_alike_within_an_hour_are_one_event() -> None:
    """Same name and key: the same id all hour long, readable as any event; else another."""
    at = 1_800_000_000_000 // WINDOW_MS * WINDOW_MS
    first = alert_event(AGENT, "low_balance", at)
    assert alert_event(AGENT, "low_balance", at + WINDOW_MS - 1).event_id == first.event_id
    others = [
        alert_event(AGENT, "low_balance", at + WINDOW_MS),
        alert_event(AGENT, "low_balance", at, key="x"),
        alert_event(AGENT, "job_failed", at),
        alert_event("another", "low_balance", at),
    ]
    assert len({first.event_id, *(one.event_id for one in others)}) == 5
    assert read_event(write_event(first), at) == first


def test_every_alert_is_explained() -> None:
    """The runbook link of each alert has its section."""
    sections = set(re.findall(r"^## (\S+)$", DOCUMENT.read_text("utf-8"), re.MULTILINE))
    assert set(KINDS) <= sections


async def test_a_webhook_gets_a_signed_post_and_failures_stay_its_own(
    office: Any, hook: Hook
) -> None:
    """503 is retried, 400 is not; the id is the same each time, the other sink told once."""
    settings = AlertSettings(webhook_url=hook.url, webhook_secret="s3cret")  # noqa: S106 - a test's
    told: list[str] = []

    class Other:
        async def send(self, _alert: Any, alert_id: str) -> None:
            told.append(alert_id)

    async with open_sinks(settings) as sinks:
        place = await place_with(office, settings, {**sinks, "other": Other()})
        event = alert_event(AGENT, "job_failed", place.now, detail="j1")
        assert await place.run(event) == Ack()
        other, post = place.runner.emitted
        assert [other.payload["sink"], post.payload["sink"]] == ["other", "webhook"]
        assert await place.run(other) == Ack()
        hook.status = 503
        assert isinstance(await place.run(post), Retry)
        hook.status = 400
        assert isinstance(await place.run(post, attempt=2), Fail)
        hook.status = 204
        assert await place.run(post, attempt=2, replay=1) == Ack()
    assert told == [event.event_id]
    assert {headers["Idempotency-Key"] for headers, _ in hook.got} == {event.event_id}
    headers, body = hook.got[-1]
    digest = hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    assert headers["X-Fleet-Signature"] == f"sha256={digest}"
    (row,) = await place.desk.store.read(lambda tx: alerts.newest(tx, AGENT))
    assert (row.name, row.severity, row.detail) == ("job_failed", "warning", "j1")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what Apprise itself imports
async def test_apprise_reaches_what_it_knows(office: Any, hook: Hook) -> None:
    """An Apprise address is a sink of its own; one that is none is refused at the start."""
    address = hook.url.replace("http://", "json://")
    settings = AlertSettings(apprise_urls=address)
    async with open_sinks(settings) as sinks:
        place = await place_with(office, settings, sinks)
        chain = await place.runner.chain(alert_event(AGENT, "job_failed", place.now, detail="j1"))
    assert [kind for kind, _ in chain] == ["alert.raised", "alert.delivery_requested"]
    assert b"nobody takes it over" in hook.got[0][1]
    with pytest.raises(SettingsError, match=r"Address 1 in APPRISE_URLS"):
        async with open_sinks(AlertSettings(apprise_urls="secret-that-is-no-address")):
            pass


async def test_an_alert_counts_once_whoever_has_it_too(office: Any) -> None:
    """The same alert at two workers at once: one row, one count."""
    place = await place_with(office, AlertSettings(), {})
    labels = {"name": "job_failed", "severity": "warning"}

    def counted() -> float:
        return metrics.REGISTRY.get_sample_value("fleet_alerts_total", labels) or 0.0

    before = counted()
    event = alert_event(AGENT, "job_failed", place.now)
    await place.run(event)
    await place.desk.store.run(lambda tx: tx.execute("DELETE FROM journal"))
    await place.run(event)
    assert counted() == before + 1


async def test_what_is_below_the_severity_is_only_written_down(office: Any) -> None:
    """`ALERT_SEVERITY=critical`: a warning reaches no sink, and the log has it."""
    settings = AlertSettings(severity="critical")
    place = await place_with(office, settings, {"webhook": None})
    await place.run(alert_event(AGENT, "job_failed", place.now))
    assert place.runner.emitted == []
    assert len(await place.desk.store.read(lambda tx: alerts.newest(tx, AGENT))) == 1


async def test_a_webhook_that_hangs_holds_up_nobody_else(office: Any) -> None:
    """Two deliveries wait for it; the others come again later, and no attempt is counted."""
    hung, asked = asyncio.Event(), 0

    class Hanging:
        async def send(self, _alert: Any, _alert_id: str) -> None:
            nonlocal asked
            asked += 1
            await hung.wait()

    settings = AlertSettings()
    place = await place_with(office, settings, {"webhook": Hanging()})
    for number in range(4):
        await place.run(alert_event(AGENT, "job_failed", place.now, key=f"j{number}"))
    waiting = [asyncio.create_task(place.run(one)) for one in place.runner.emitted[:2]]
    await until(lambda: asked == 2)
    for one in place.runner.emitted[2:]:
        assert isinstance(await place.run(one), Postpone)
    hung.set()
    assert await asyncio.gather(*waiting) == [Ack(), Ack()]
    assert await place.run(place.runner.emitted[2]) == Ack()


def fleet_alerts(store_url: str, *words: str) -> Any:
    """Run `fleet alerts` on this store."""
    return subprocess.run(
        [sys.executable, "-m", "fleet", "alerts", *words],
        env={**os.environ, "STORE_URL": store_url},
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


async def test_an_operator_lists_alerts_and_resolves_them(office: Any, store_url: str) -> None:
    """Open ones, filtered; resolved with a note, and only shown where they are asked for."""
    assert "No alert is open" in fleet_alerts(store_url, "list").stdout
    place = await place_with(office, AlertSettings(), {})
    told = [("job_failed", "j1"), ("job_failed", "j2"), ("shutdown", "")]
    events = [alert_event(AGENT, name, place.now, key=key, detail="[red]") for name, key in told]
    for event in events:
        await place.run(event)
    shown = fleet_alerts(store_url, "list")
    assert (shown.stdout.count("job_failed"), shown.returncode) == (2, 0)
    assert "[red]" in shown.stdout
    (critical,) = json.loads(
        fleet_alerts(store_url, "list", "--severity", "critical", "--json").stdout
    )
    assert (critical["name"], critical["resolved"]) == ("shutdown", None)
    by = ("--note", "seen", "--by", "ann", "--json")
    done = fleet_alerts(store_url, "resolve", events[2].event_id, *by)
    assert json.loads(done.stdout) == {"resolved": [events[2].event_id]}
    assert len(json.loads(fleet_alerts(store_url, "list", "--json").stdout)) == 2
    found = json.loads(
        fleet_alerts(store_url, "list", "--all", "--name", "shutdown", "--json").stdout
    )
    assert (found[0]["resolved"]["operator"], found[0]["resolved"]["note"]) == ("ann", "seen")
    again = fleet_alerts(store_url, "resolve", events[0].event_id, events[2].event_id, *by)
    assert (again.returncode, again.stdout) == (2, "")
    assert "resolved already; nothing was changed" in again.stderr
    rest = fleet_alerts(store_url, "resolve", "--all", "--name", "job_failed", "--note", "over")
    assert rest.stdout == "2 resolved.\n"
    assert fleet_alerts(store_url, "list", "--since", "2h", "--json").stdout == "[]\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("resolve", "--note", "x"), "Name the alerts by their ids, or say --all"),
        (("resolve", "E1", "--all", "--note", "x"), "Name the alerts by their ids, or say --all"),
        (("resolve", "E1", "--name", "x", "--note", "x"), "Name the alerts by their ids"),
        (("resolve", "E1", "--note", "x"), "There is no alert E1"),
        (("list", "--since", "soon"), "'soon' is no time"),
    ],
)
async def test_a_wrong_word_about_alerts_changes_nothing(
    office: Any, store_url: str, words: tuple[str, ...], sentence: str
) -> None:
    """One sentence, exit code 2."""
    await office()
    said = fleet_alerts(store_url, *words)
    assert (said.returncode, said.stdout) == (2, "")
    assert sentence in said.stderr
    assert "Traceback" not in said.stderr
