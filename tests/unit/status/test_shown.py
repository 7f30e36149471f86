"""The screen, for a fleet at one moment."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console, RenderableType

from fleet.cli import status_shown
from fleet.status.handlers import lines
from fleet.status.state import ServiceState, State

SHOWN = Path(__file__).parent / "shown"


def printed(what: RenderableType) -> str:
    """What a terminal without colours shows."""
    out = Console(file=io.StringIO(), width=150, color_system=None)
    out.print(what)
    text = out.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def test_the_screen_shows_everything(state: State):
    """What needs a person stands first; numbers are what the state has."""
    assert printed(status_shown.screen(state)) == (SHOWN / "status.txt").read_text("utf-8")


def test_the_handlers_are_shown_busiest_first(state: State):
    """Rates and times are over all live workers; a halted one says so."""
    found = printed(status_shown.top(state, lines(state)))
    assert found == (SHOWN / "top.txt").read_text("utf-8")


def test_what_is_away_is_said_first_and_the_rest_is_shown(state: State):
    """Without a broker the depths are unknown, not zero; the store's part stands."""
    away = msgspec.structs.replace(
        state,
        broker="Cannot reach the broker at h:5672; start it or correct AMQP_URL.",
        services=(ServiceState("trading.agent"),),
    )
    text = printed(status_shown.screen(away))
    assert text.splitlines()[1] == f"! {away.broker}"
    assert " ? " in text
    assert "w-1" in text


def test_a_fleet_without_a_leader_is_told(state: State):
    """A lease that ran out is nobody's."""
    led = msgspec.structs.replace(state.leases[0], expires_at_ms=state.at_ms - 1)
    text = printed(status_shown.screen(msgspec.structs.replace(state, leases=(led,))))
    assert "! no bridge leads" in text
    assert "! no bridge leads" not in printed(status_shown.screen(state))


def test_open_alerts_are_told(state: State):
    """By severity, with the command that lists them; none is no line."""
    told = msgspec.structs.replace(state, alerts={"warning": 1_200, "critical": 2})
    line = "! alerts are open: 2 critical, 1,200 warning (fleet alerts list)"
    assert line in printed(status_shown.screen(told))
    assert "alerts" not in printed(status_shown.screen(state))


def test_nothing_is_shown_of_nothing():
    """An empty fleet is one line, not empty tables."""
    assert printed(status_shown.screen(State(0))).splitlines() == [
        "Flea Fleet  00:00:00 UTC  ·  0 workers  ·  0 bridges"
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3_600, "1 h"),
        (86_400, "1 d"),
        (-5, "0 s"),
    ],
)
def test_a_span_is_told_in_its_largest_unit(seconds: float, words: str):
    """Short enough for a column."""
    assert status_shown.span(seconds) == words
