"""`fleet demo` as a user runs it: separate processes, a real broker, real kills."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleet.broker import Management, RunningBroker

KEYS = (
    "emitted published shed quarantined missed handled skipped expired failed waiting unrouted"
    " unaccounted orders_opened orders_closed orders_duplicated latency_ms workers seconds"
)
FINISHED = ("handled", "skipped", "expired", "failed", "waiting", "unrouted")
TIMEOUT_S = 240


def environment(broker: RunningBroker) -> dict[str, str]:
    """Where the demo finds its broker."""
    kept = {name: value for name, value in os.environ.items() if name != "FLEET_BROKER"}
    url = {"MANAGEMENT_URL": broker.management_url} if broker.management_url else {}
    return {**kept, "AMQP_URL": broker.amqp_url, **url}


def start(broker: RunningBroker, folder: Path, *words: str) -> subprocess.Popen[str]:
    """Begin a demo that leaves its files in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-m", "fleet", "demo", *words],
        env={**environment(broker), "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it still says on stdout and stderr, once it has ended."""
    try:
        return process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()  # else the end of its `with` would wait for ever
        raise


def demo(broker: RunningBroker, folder: Path, *words: str) -> tuple[dict[str, Any], str]:
    """The object that a demo prints, and what it tells; it must have ended well."""
    with start(broker, folder, *words, "--json") as process:
        out, err = end_of(process)
    assert process.returncode == 0, f"{out}\n{err}"
    return dict(json.loads(out)), err


def assert_accounted(said: dict[str, Any]) -> None:
    """Both equations hold, nothing is missing, nothing was done twice."""
    assert " ".join(said) == KEYS
    roads = ("published", "shed", "quarantined", "missed")
    assert said["emitted"] == sum(said[road] for road in roads)
    assert said["published"] == sum(said[each] for each in FINISHED)
    assert (said["unaccounted"], said["orders_duplicated"], said["waiting"]) == (0, 0, 0)
    assert said["handled"] == sum(worker["handled"] for worker in said["workers"])


def assert_nothing_left(folder: Path, management: Management, told: str) -> None:
    """No process, no file, no virtual host of the demo that told this."""
    assert not list(folder.iterdir())
    running = subprocess.run(["ps", "axww", "-o", "args"], check=True, capture_output=True).stdout
    assert str(folder).encode() not in running
    (name,) = re.findall(r"virtual host (fleet-demo-\w+)", told)
    assert name not in {vhost["name"] for vhost in management.get("vhosts")}


def test_a_worker_and_the_bridge_are_killed_and_nothing_is_lost_nor_done_twice(
    broker: RunningBroker, management: Management, tmp_path: Path
):
    """Every event is accounted for by id, orders were placed, and each worker had a part."""
    said, told = demo(broker, tmp_path, "--events", "2000", "--speed", "40", "--kill")
    assert_accounted(said)
    assert said["emitted"] >= 2000
    assert said["orders_opened"] > 0
    assert [worker["name"] for worker in said["workers"]] == ["worker-1", "worker-2", "worker-3"]
    assert 0 <= said["latency_ms"]["p50"] <= said["latency_ms"]["p99"]
    assert_nothing_left(tmp_path, management, told)


def test_a_recorded_tape_is_accounted_for_trade_by_trade(
    broker: RunningBroker, data_dir: Path, tmp_path: Path
):
    """As many events as the tape has trades, and those that were woven in between."""
    tape = data_dir / "trades-btcusdt-ethusdt-20240808.csv.gz"
    said, _ = demo(broker, tmp_path, "--trades", str(tape), "--events", "3000", "--speed", "max")
    assert_accounted(said)
    assert said["emitted"] >= 3000


def test_a_venue_that_misbehaves_leaves_book_and_venue_agreed(
    broker: RunningBroker, tmp_path: Path
):
    """Errors, lost answers and a slow venue: no order twice, the same positions on both sides."""
    faults = "errors=0.2,latency=50ms,timeouts=0.05,lost_answers=0.2"
    said, _ = demo(broker, tmp_path, "--events", "1200", "--speed", "60", "--venue-faults", faults)
    shown = {name: said.pop(name) for name in ("mode", "calls", "injections", "injection_rate")}
    assert_accounted(said)
    assert shown["mode"] in ("full", "read_only")
    assert 0 < shown["injections"] < shown["calls"]
    assert shown["injection_rate"] == round(shown["injections"] / shown["calls"], 3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_running(
    broker: RunningBroker, management: Management, tmp_path: Path, number: signal.Signals
):
    """In the middle of the feed: one sentence, exit code 130, nothing left."""
    with start(broker, tmp_path, "--workers", "1") as process:
        assert process.stderr is not None
        told = ""
        for line in process.stderr:
            told += line
            if line.startswith("emitted") and not line.startswith("emitted 0"):
                break
        process.send_signal(number)
        _, err = end_of(process)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("fleet: Interrupted")
    assert "Traceback" not in err
    assert_nothing_left(tmp_path, management, told)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--trades", "nowhere.csv"), "The tape nowhere.csv cannot be read"),
        (("--handlers", "nowhere:service"), "There is no module nowhere"),
        (("--threshold", "a lot"), "is no fraction"),
        (("--threshold", "nan"), "is no fraction"),
        (("--threshold", "snan"), "is no fraction"),
        (("--threshold", "inf"), "is no fraction"),
        (("--speed", "nan"), "neither a number above 0 nor max"),
        (("--workers", "0"), "--workers"),
        (("--venue-faults", "errors=2"), "needs a rate"),
    ],
)
def test_a_wrong_option_is_one_sentence_before_anything_is_started(
    tmp_path: Path, words: tuple[str, ...], sentence: str
):
    """Exit code 2, no traceback, no broker asked for."""
    done = subprocess.run(
        [sys.executable, "-m", "fleet", "demo", "--json", *words],
        env={**os.environ, "AMQP_URL": "amqp://127.0.0.1:1/", "TMPDIR": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert sentence in done.stderr
    assert (done.stdout, "Traceback" in done.stderr) == ("", False)
    assert not list(tmp_path.iterdir())
