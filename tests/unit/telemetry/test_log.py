"""Log lines: for people on a terminal, else JSON; about what is in hand; without secrets."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from fleet.settings import load
from fleet.telemetry import log as logs
from fleet.telemetry.settings import LogSettings


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    logs.about.set(None)


class InHand:
    """Something a line is about."""

    def log_words(self) -> dict[str, Any]:
        """What the line says of it."""
        return {"event_id": "01J", "attempt": 2}


@pytest.mark.parametrize(
    ("env", "is_json"),
    [({}, True), ({"LOG_FORMAT": "console"}, False), ({"LOG_FORMAT": "json"}, True)],
)
def test_the_format_is_what_was_asked_for(
    env: dict[str, str], is_json: bool, monkeypatch: Any, capsys: Any
):
    """Where no terminal reads, auto is JSON."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    logs.configure_from(load(LogSettings))
    structlog.get_logger("t").info("hello", key="sk_live_secret")
    line = capsys.readouterr().err
    assert "hello" in line
    assert "secret" not in line
    assert line.startswith("{") is is_json


def test_lines_below_the_level_are_not_written(monkeypatch: Any, capsys: Any):
    """LOG_LEVEL=warning leaves information out."""
    monkeypatch.setenv("LOG_LEVEL", "warning")
    logs.configure_from(load(LogSettings))
    structlog.get_logger("t").info("quiet")
    structlog.get_logger("t").warning("loud")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["loud"]


def test_a_line_says_what_is_in_hand_unless_it_says_so_itself(capsys: Any):
    """The words of what is in hand are added, and do not overwrite those of the line."""
    logs.configure(json=True)
    logs.about.set(InHand())
    structlog.get_logger("t").info("hello", attempt=7)
    line = json.loads(capsys.readouterr().err)
    assert (line["event_id"], line["attempt"]) == ("01J", 7)


def test_what_libraries_log_comes_out_in_our_form(capsys: Any):
    """Once, masked and as JSON; nothing of the AMQP client, which names users and passwords."""
    for _ in range(2):
        logs.configure(json=True)
    try:
        logging.getLogger("psycopg").warning("lost %s", "postgresql://fleet:hunter2@db/fleet")
        logging.getLogger("psycopg").info("not asked for")
        logging.getLogger("aiormq.connection").error("amqp://fleet:hunter2@broker/")
        (line,) = capsys.readouterr().err.splitlines()
    finally:
        logging.getLogger().handlers = [
            each
            for each in logging.getLogger().handlers
            if not type(each).__module__.startswith("fleet.")
        ]
    said = json.loads(line)
    assert (said["level"], said["by"]) == ("warning", "psycopg")
    assert said["event"].startswith("lost ")
    assert "hunter2" not in line
