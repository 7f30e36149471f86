"""`fleet status` and `fleet top` beside real workers, a broker and a store."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fleet import clock
from fleet.core.errors import ApiError
from fleet.core.retry import RetryPolicy
from fleet.status.gather import Gatherer
from fleet.store import controls, effects
from fleet.store.api import Candidate, Claim
from fleet.store.controls import Pause
from topology import names
from topology.model import Lanes
from workers import report
from workers.context import Context
from workers.registry import Service

COUNTS = ("handled", "failed", "retried")


async def told(bench: Any, *words: str, **environment: str) -> Any:
    """What a command prints as JSON, with nothing on standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "fleet",
        *words,
        env={**os.environ, "AMQP_URL": bench.url, "STORE_URL": bench.store_url, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b""), err.decode()
    return json.loads(out)


async def test_the_status_is_what_the_fleet_does(
    bench: Any, service: Service, monkeypatch: pytest.MonkeyPatch
):
    """Replicas, lanes, depths, failures, retries, effects, pauses; then each handler."""
    monkeypatch.setattr(report, "SPAN_S", 600.0)  # for as long as a busy machine takes to ask
    service.lanes = Lanes()
    service.retry = RetryPolicy(attempts=2, cap=400.0)

    @service.handler("market.tick")
    def on_tick(_: Context, __: dict[str, Any]) -> None:
        """Be done."""

    @service.handler("test.bad", retry=RetryPolicy(attempts=1))
    def bad(_: Context, __: dict[str, Any]) -> None:
        raise ConnectionError("odd")

    @service.handler("test.later")
    def later(_: Context, __: dict[str, Any]) -> None:
        raise ApiError("not yet", retry_after=400.0)  # full jitter could be no time

    await bench.lay_out(service)
    workers = [await bench.start(service) for _ in range(2)]
    await bench.until(lambda: sum(len(each.consuming) for each in workers) == 2 * 17)
    ticks = [
        bench.event("market.tick", {"pair": f"P{n}", "price": 1, "timestamp_ms": n})
        for n in range(40)
    ]
    failing = [bench.event("test.bad") for _ in range(12)]
    for event in [*ticks, *failing, *(bench.event("test.later") for _ in range(3))]:
        await bench.publish(event)
    await bench.settled(service, [*ticks, *failing])
    now_ms = clock.now_ms()
    claim = Claim("k", "order.requested", "somebody", now_ms)
    await bench.store.admit([Candidate("x", "E", 0, claim)], now_ms)
    pause = Pause("another.service", "*", "why", "ada", now_ms)
    await bench.store.run(lambda tx: controls.pause(tx, pause))
    assert await bench.store.read(lambda tx: effects.get(tx, "k")) is not None

    found: dict[str, Any] = {}

    async def told_all() -> bool:
        found.update(await told(bench, "status", "--json"))
        pulses = [each["pulse"] for each in found["replicas"]]
        counts = [sum(pulse.get(what, 0) for pulse in pulses) for what in COUNTS]
        # A broker or a store that takes longer than five seconds is said to be away.
        return counts == [40, 12, 3] and (found["broker"], found["store"]) == ("", "")

    await bench.until(told_all)
    (mine,) = found["services"]
    assert {each["name"] for each in found["replicas"]} == {each.name for each in workers}
    assert {each["pulse"]["state"] for each in found["replicas"]} == {"running"}
    assert (mine["queues"]["failed"], mine["queues"]["consumers"]) == (12, 2)
    assert sum(mine["queues"]["retries"].values()) == 3
    assert mine["queues"]["lanes"]["unconsumed"] == 0
    assert sum(mine["queues"]["lanes"]["owners"].values()) == mine["queues"]["lanes"]["count"]
    assert [(each["handler"], each["count"]) for each in mine["groups"]] == [("bad", 12)]
    assert found["effects"] == {"order.requested": {"reserved": 1}}
    assert [each["note"] for each in found["pauses"]] == ["why"]

    lines = {each["handler"]: each for each in (await told(bench, "top", "--json"))["handlers"]}
    assert (lines["on_tick"]["workers"], lines["bad"]["failed"]) == (2, 12)
    assert lines["later"]["retried"] == 3
    assert lines["on_tick"]["p50_s"] <= lines["on_tick"]["p99_s"]
    assert await bench.depth(names.failed(service.name)) == 12


async def test_a_part_that_is_away_says_so(bench: Any, service: Service, tmp_path: Path):
    """Without a broker the store still speaks, without a store the broker does."""

    @service.handler("test.plain")
    def plain(_: Context, __: dict[str, Any]) -> None:
        """Be done."""

    await bench.lay_out(service)
    await bench.start(service)
    nobody = "amqp://guest:guest@127.0.0.1:1/"
    found: dict[str, Any] = {}

    async def speaks(part: str, **environment: str) -> bool:
        found.update(await told(bench, "status", "--json", **environment))
        return bool(found[part] == "")

    await bench.until(lambda: speaks("store", AMQP_URL=nobody))
    assert "Cannot reach the broker at 127.0.0.1:1" in found["broker"]
    assert [each["queues"] for each in found["services"]] == [None]
    assert len(found["replicas"]) == 1
    await bench.until(lambda: speaks("broker", STORE_URL=f"sqlite:///{tmp_path}/none/f.db"))
    assert "There is no store" in found["store"]
    assert found["shared"]["unrouted"] == 0


async def test_a_broker_that_comes_back_is_asked_again(bench: Any, service: Service):
    """The screen goes on by itself: a lost connection is one look without depths."""

    @service.handler("test.plain")
    def plain(_: Context, __: dict[str, Any]) -> None:
        """Be done."""

    await bench.lay_out(service)
    async with Gatherer(bench.store_url, bench.url) as gatherer:

        async def there() -> bool:
            return (await gatherer.look()).broker == ""

        await bench.until(there)
        await gatherer._looks._connection.close()  # type: ignore[union-attr]  # as a broker does
        assert (await gatherer.look()).broker != ""
        await bench.until(there)
        assert (await gatherer.look()).services[0].queues is not None


async def test_the_live_screen_goes_on_until_ctrl_c(bench: Any, service: Service):
    """On a terminal it is drawn again and again; Ctrl-C leaves the screen as it was."""

    @service.handler("test.plain")
    def plain(_: Context, __: dict[str, Any]) -> None:
        """Be done."""

    await bench.lay_out(service)
    ours, terminal = pty.openpty()
    os.set_blocking(ours, False)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fleet", "status", "--every", "0.5"),
        env={**os.environ, "AMQP_URL": bench.url, "STORE_URL": bench.store_url, "TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = bytearray()

    def read(until: Callable[[], bool]) -> bool:
        """Take what is drawn: who writes to a full terminal stands still."""
        with suppress(OSError):  # nothing now, or nobody draws any more
            while octets := os.read(ours, 1 << 16):
                shown.extend(octets)
        return until()

    await bench.until(lambda: read(lambda: shown.count(b"Flea Fleet") > 2))
    process.send_signal(signal.SIGINT)
    await bench.until(lambda: read(lambda: process.returncode is not None))
    read(lambda: True)
    assert process.returncode == 0
    os.close(ours)
    assert service.name.encode() in shown
    assert shown.count(b"\x1b[?1049h") == shown.count(b"\x1b[?1049l") == 1
