"""Schedules fire once for the fleet, and what was missed is made up for as was asked."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.errors import SettingsError
from fleet.core.events import read_event, write_event
from fleet.store import bindings, open_store
from publisher.schedule import MOST, ON_TIME_MS, Schedule, built_in
from publisher.sources.clock import Clock, read_schedules

HOUR = 3_600_000
NOON = round(datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp() * 1000)
HOURLY = {"name": "hourly", "type": "report.due", "cron": "0 * * * *"}


class Paper:
    """Takes what a bridge publishes."""

    def __init__(self, *, wanted: bool = True) -> None:
        self.events: list[Any] = []
        self._wanted = wanted

    async def wanted(self, _: str) -> bool:
        """What the bindings would say."""
        return self._wanted

    async def publish(self, event: Any, _: Any = None) -> None:
        """Keep it."""
        self.events.append(event)


@pytest.mark.parametrize(
    ("missed", "hours"), [("skip", [0]), ("once", [0]), ("all", [-3, -2, -1, 0])]
)
def test_missed_firings(missed: Any, hours: list[int]):
    """Away for four hours: the one on time, and of the others as many as the policy says."""
    schedule = Schedule(**HOURLY, missed=missed)
    due = schedule.due(NOON - 4 * HOUR, NOON + 500)
    assert due == [NOON + hour * HOUR for hour in hours]


@pytest.mark.parametrize(("missed", "hours"), [("skip", []), ("once", [0]), ("all", [-1, 0])])
def test_all_are_late(missed: Any, hours: list[int]):
    """Half an hour after the last firing nothing is on time: once makes up for the last one."""
    schedule = Schedule(**HOURLY, missed=missed)
    due = schedule.due(NOON - 2 * HOUR, NOON + HOUR // 2)
    assert due == [NOON + hour * HOUR for hour in hours]


@given(
    st.integers(0, 2**20),
    st.lists(st.integers(0, ON_TIME_MS), max_size=20),
    st.integers(1, 100),
)
def test_each_time_fires_once_however_often_one_looks(start: int, steps: list[int], every: int):
    """Looks at any moments: no firing twice, none left out, all in order."""
    schedule = Schedule("a", "a.b", every_s=every, missed="all")
    last, now = NOON + start, NOON + start
    fired: list[int] = []
    for step in steps:
        now += step
        due = schedule.due(last, now)
        fired += due
        last = due[-1] if due else last
    step_ms = every * 1000
    first = (NOON + start) // step_ms * step_ms + step_ms
    assert fired == list(range(first, now + 1, step_ms))


def test_no_more_than_so_many_are_made_up_for():
    """A year away, each minute missed: the last ones, and quickly."""
    schedule = Schedule("a", "a.b", cron="* * * * *", missed="all")
    due = schedule.due(NOON - 365 * 24 * HOUR, NOON)
    assert len(due) == MOST
    assert due[-1] == NOON


def test_summer_time_is_the_zone_s():
    """Eight in the morning in Berlin is six or seven in UTC, as the day is."""
    schedule = Schedule("a", "a.b", cron="0 8 * * *", zone=ZoneInfo("Europe/Berlin"), missed="all")
    begin = round(datetime(2026, 3, 28, tzinfo=UTC).timestamp() * 1000)
    due = schedule.due(begin, begin + 48 * HOUR)
    assert [datetime.fromtimestamp(at / 1000, UTC).hour for at in due] == [7, 6]


def test_two_bridges_make_the_same_event():
    """Same schedule, same time: the same event, readable as any; another time, another id."""
    (health, _) = built_in(300, 600)
    one = health.event("pf_agent_a", NOON)
    assert one == health.event("pf_agent_a", NOON)
    assert read_event(write_event(one), NOON).payload["due_ms"] == NOON
    assert health.event("pf_agent_b", NOON).event_id != one.event_id


async def test_a_new_schedule_counts_from_its_first_look_and_a_restart_goes_on(tmp_path: Path):
    """Nothing at first; then each firing once, though another bridge takes over."""
    store = open_store(f"sqlite:///{tmp_path}/fleet.db")
    await store.open()
    now, paper = NOON + 1000, Paper()
    schedules = [Schedule(**HOURLY, missed="all"), *built_in(0, 600)]

    def bridge() -> Clock:
        return Clock(paper, store, "a", schedules, lambda: now)  # type: ignore[arg-type] # a paper

    await bridge().look()
    assert paper.events == []
    first, second = bridge(), bridge()
    now = NOON + HOUR + 5
    await first.look()
    await first.look()
    now += HOUR
    await second.look()
    await first.look()
    await store.close()
    hourly = [event.ts for event in paper.events if event.type == "report.due"]
    assert hourly == [NOON + HOUR, NOON + 2 * HOUR]
    assert [event.ts for event in paper.events if event.type == "clock.reconcile"] == hourly


async def test_nobody_is_told_the_time_who_did_not_ask(tmp_path: Path):
    """Without a service that binds clock.*, no clock event is made to lie unrouted."""
    store = open_store(f"sqlite:///{tmp_path}/fleet.db")
    await store.open()
    assert not await store.read(lambda tx: bindings.wants(tx, "clock.health"))
    await store.run(lambda tx: bindings.record(tx, "mine", ["clock.*"], 0))
    assert await store.read(lambda tx: bindings.wants(tx, "clock.health"))
    assert not await store.read(lambda tx: bindings.wants(tx, "market.tick"))
    await store.close()


def test_a_file_of_schedules(tmp_path: Path):
    """Names, expressions, payloads, policies."""
    path = tmp_path / "schedules.toml"
    path.write_text(
        '[[schedule]]\nname = "daily"\ntype = "report.due"\ncron = "30 7 * * 1-5"\n'
        'payload = {scope = "day"}\nmissed = "once"\nzone = "Europe/Berlin"\n'
    )
    (daily,) = read_schedules(path)
    assert daily.event("a", NOON).payload == {"scope": "day", "schedule": "daily", "due_ms": NOON}
    assert (daily.missed, str(daily.zone)) == ("once", "Europe/Berlin")


@pytest.mark.parametrize(
    "wrong",
    [
        'cron = "61 * * * *"',
        'cron = "* * * * *"\nzone = "Mars/Olympus"',
        'cron = "* * * * *"\nmissed = "maybe"',
        'cron = "* * * * *"\ncolour = "red"',
        'cron = "* * * * *"\npayload = 5',
        "cron = ",
    ],
)
def test_a_wrong_schedule_is_one_sentence(tmp_path: Path, wrong: str):
    """Whatever is wrong with the file, it is said before the bridge starts."""
    path = tmp_path / "schedules.toml"
    path.write_text(f'[[schedule]]\nname = "daily"\ntype = "report.due"\n{wrong}\n')
    with pytest.raises(SettingsError, match=r"^SCHEDULES_FILE is wrong: .*\.$"):
        read_schedules(path)


def test_a_schedule_makes_no_ticks(tmp_path: Path):
    """A price that nobody made is none, and a tick without a pair ended the bridge."""
    path = tmp_path / "schedules.toml"
    path.write_text('[[schedule]]\nname = "a"\ntype = "market.tick"\ncron = "* * * * *"\n')
    with pytest.raises(SettingsError, match=r"market\.tick is for the stream alone"):
        read_schedules(path)


def test_a_name_twice_or_a_file_that_is_not_there(tmp_path: Path):
    """Two schedules of a name would share their firings."""
    path = tmp_path / "schedules.toml"
    with pytest.raises(SettingsError, match="cannot be read"):
        read_schedules(path)
    entry = '[[schedule]]\nname = "a"\ntype = "a.b"\ncron = "* * * * *"\n'
    path.write_text(entry * 2)
    with pytest.raises(SettingsError, match="a name twice: a"):
        read_schedules(path)
