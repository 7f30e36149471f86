"""What versions, figures, clocks and settings mean for the fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from fleet.doctor import broker, clocks, storing
from fleet.doctor.finding import Finding, is_well


def levels(findings: Any) -> list[str]:
    """Their levels, in order."""
    return [each.level for each in findings]


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("3.9.29", "fail"),
        ("3.10.8", "ok"),
        ("3.13.7", "ok"),
        ("4.0.5", "ok"),
        ("4.2.6", "warn"),
        ("4.3.0", "warn"),
        ("4.3.6", "ok"),
    ],
)
def test_a_version_is_judged_by_what_it_keeps(version: str, level: str):
    """3.10 is the oldest; two releases refuse what the fleet's users may do elsewhere."""
    assert broker.version("RabbitMQ", version).level == level


def test_another_broker_is_no_rabbitmq():
    """It may speak AMQP and still keep less."""
    assert broker.version("LavinMQ", "2.0.0").level == "warn"
    assert broker.version("", "").level == "warn"


@pytest.mark.parametrize(
    ("figures", "level"),
    [
        ({}, "ok"),
        ({"running": False}, "fail"),
        ({"mem_alarm": True}, "fail"),
        ({"disk_free_alarm": True}, "fail"),
        ({"partitions": ["rabbit@b"]}, "fail"),
        ({"disk_free": 60 << 20}, "warn"),
    ],
)
def test_a_node_that_takes_nothing_fails(figures: dict[str, Any], level: str):
    """Alarms stop all publishing; a disk that is nearly full will."""
    well = {"name": "rabbit@a", "running": True, "disk_free": 9 << 30, "disk_free_limit": 50 << 20}
    assert levels(broker.nodes([{**well, **figures}])) == [level]


def test_a_policy_is_named_once_with_how_many_queues_it_bends():
    """Others' queues, and keys that change nothing, are left out."""
    ttl = {"effective_policy_definition": {"message-ttl": 9, "ha-mode": "all"}}
    queues = [{"name": name, **ttl} for name in ("pf.a", "pf.b", "theirs")]
    found = broker.policies([*queues, {"name": "pf.c", "effective_policy_definition": []}])
    assert levels(found) == ["warn"]
    assert "message-ttl = 9 on pf.a and 1 more" in found[0].text


def test_the_consumer_timeout_is_that_of_policy_or_queue():
    """Where neither says, the broker's default holds."""
    assert broker.consumer_timeouts(
        [
            {"name": "pf.a", "effective_policy_definition": {"consumer-timeout": 5_000}},
            {"name": "pf.b", "arguments": {"x-consumer-timeout": 7_000}},
            {"name": "pf.c", "arguments": {}},
        ]
    ) == {"pf.a": 5.0, "pf.b": 7.0}


@pytest.mark.parametrize(
    ("longest_s", "in_hand", "level"), [(20, 400, "ok"), (60, 400, "warn"), (1_800, 1, "fail")]
)
def test_a_delivery_must_be_settled_before_the_broker_takes_it_back(
    longest_s: float, in_hand: int, level: str
):
    """What waits behind others in a worker counts too."""
    assert broker.deadline("a", longest_s, in_hand, 10, 1_800).level == level


@pytest.mark.parametrize(
    ("url", "level"),
    [
        ("amqps://broker.example/", "ok"),
        ("amqps://broker.example/?no_verify_ssl=1", "warn"),
        ("amqp://broker.example/", "warn"),
        ("amqp://rabbitmq/", None),
        ("amqp://127.0.0.1/", None),
    ],
)
def test_an_open_way_to_the_broker_is_told(url: str, level: str | None):
    """On this machine and in a private network by name nobody listens."""
    found = broker.encryption(URL(url))
    assert (found and found.level) == level


@pytest.mark.parametrize(("ahead_s", "level"), [(0.4, "ok"), (-3, "warn"), (20, "fail")])
def test_a_clock_that_is_off_is_told(ahead_s: float, level: str):
    """Seconds are noticed; half the age of a tick is harmful."""
    assert clocks.skew("x", ahead_s).level == level


def test_a_date_header_is_read_and_another_text_is_not():
    """In the middle of its second, for it has no fractions."""
    assert clocks.date_s("Thu, 01 Jan 1970 00:00:10 GMT") == 10.5
    assert clocks.date_s("") is None


def test_a_server_that_forgets_in_a_crash_fails():
    """One finding for each setting that is off; the clock besides."""
    fine = {"synchronous_commit": "on", "fsync": "on", "full_page_writes": "on"}
    assert levels(storing.server(fine, 100.0, 100.0)) == ["ok", "ok"]
    lax = {**fine, "fsync": "off", "synchronous_commit": "off"}
    assert levels(storing.server(lax, 100.0, 90.0)) == ["fail", "fail", "warn"]


def test_a_write_ahead_log_that_grew_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A reader that never ends keeps it from being folded in."""
    with (tmp_path / "fleet.sqlite3-wal").open("wb") as file:
        file.truncate(2 << 20)
    assert "warn" not in levels(storing.disk(tmp_path))
    monkeypatch.setattr(storing, "LARGE_WAL_MB", 1)
    assert levels(storing.disk(tmp_path))[-1] == "warn"


def test_warnings_alone_are_well():
    """The exit code is about what fails."""
    assert is_well([Finding("a", "warn", "odd")])
    assert not is_well([Finding("a", "ok", "fine"), Finding("a", "fail", "bad")])
