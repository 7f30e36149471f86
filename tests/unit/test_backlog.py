"""The alarm over what waits for a person."""

from __future__ import annotations

from structlog.testing import capture_logs

from fleet.backlog import Alarm, Backlog
from fleet.telemetry.metrics import FLEET


def test_the_alarm_is_raised_once_and_taken_back_once():
    """Eleven warn, eleven more do not again; ten end it, and eleven warn anew."""
    alarm = Alarm()
    with capture_logs() as lines:
        for depth in (3, 11, 20, 10, 11):
            alarm.tell([Backlog("a", depth, 0)], 0)
    assert [(line["log_level"], line["count"]) for line in lines] == [
        ("warning", 11),
        ("info", 10),
        ("warning", 11),
    ]


def test_each_service_has_an_alarm_of_its_own():
    """One that is above says nothing about another."""
    with capture_logs() as lines:
        Alarm().tell([Backlog("a", 11, 1_000), Backlog("b", 1, 0)], 4_000)
    assert [(line["service"], line["oldest_s"]) for line in lines] == [("a", 3)]


def test_an_age_that_no_row_knows_counts_from_when_it_was_seen():
    """What the broker parked has no row; it still grows old, and an empty queue begins anew."""
    alarm = Alarm()
    ages = [
        alarm.age_s(Backlog("a", depth, 0), now_ms)
        for depth, now_ms in ((1, 1_000), (2, 61_000), (0, 70_000), (1, 80_000), (1, 81_000))
    ]
    assert ages == [0, 60, 0, 0, 1]


def test_the_journal_s_word_on_an_age_goes_first():
    """A row knows since when, also from before anybody looked."""
    assert Alarm().age_s(Backlog("a", 1, 1_000), 61_000) == 60
    assert Backlog("a", 0, 1_000).age_s(61_000) == 0


def test_the_gauges_say_what_was_read():
    """Depth, age and alarm of each service, as they were told last."""
    alarm = Alarm()
    for depth, expected in ((11, (11, 3, 1)), (2, (2, 3, 0)), (0, (0, 0, 0))):
        alarm.tell([Backlog("gauged", depth, 1_000)], 4_000)
        found = tuple(
            FLEET.get_sample_value(f"fleet_failed_{name}", {"service": "gauged"})
            for name in ("depth", "oldest_seconds", "alarm")
        )
        assert found == expected
