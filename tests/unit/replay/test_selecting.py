"""Selections and plans mean exactly what they say."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.errors import SettingsError
from replay.entry import Entry, read_entry
from replay.plan import Item, Meant, Plan, cohorts, read_plan, write_plan
from replay.selection import Selection, moment

NOW = 1_767_323_045_000


def entry(**fields: Any) -> Entry:
    """An entry with these fields."""
    return msgspec.structs.replace(read_entry({}, b"body"), **fields)


@pytest.mark.parametrize(
    ("selected", "fields", "fits"),
    [
        ({}, {}, True),
        ({"types": ("wallet.*",)}, {"type": "wallet.low"}, True),
        ({"types": ("wallet.*",)}, {"type": "order.low"}, False),
        ({"types": ("a.*", "b.*")}, {"type": "b.c"}, True),
        ({"classes": ("network",)}, {"error_class": "data"}, False),
        ({"handlers": ("on_*",), "errors": ("Time*",)}, {"handler": "on_x"}, False),
        ({"ids": ("x",)}, {"id": "x"}, True),
        ({"text": "bod"}, {}, True),
        ({"text": "none"}, {"error": "none of it"}, True),
        ({"since_ms": 5}, {"last_ms": 4}, False),
        ({"since_ms": 5, "until_ms": 6}, {"last_ms": 6}, True),
        ({"until_ms": 6}, {"last_ms": 7}, False),
    ],
)
def test_every_field_must_fit(selected: dict[str, Any], fields: dict[str, Any], fits: bool):
    """A field's alternatives are or, fields among themselves are and."""
    assert Selection(**selected).matches(entry(**fields), b"the body") is fits


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("30s", NOW - 30_000),
        ("2h", NOW - 7_200_000),
        ("1d", NOW - 86_400_000),
        ("2026-01-02T03:04:05", NOW),
        ("2026-01-02T04:04:05+01:00", NOW),
    ],
)
def test_times_are_ago_or_a_date(text: str, at: int):
    """UTC where nothing else is said."""
    assert moment(text, NOW) == at


@given(st.text())
def test_no_time_is_a_sentence(text: str):
    """Whatever is typed is a time or one clear sentence."""
    with suppress(SettingsError):
        assert isinstance(moment(text, NOW), int)


ITEMS = st.builds(
    Item,
    st.text(),
    st.text(),
    st.integers(0, 9),
    st.text(),
    st.sampled_from(["run", "done", "expired", "refused"]),
)


@given(st.lists(ITEMS))
def test_a_plan_is_read_as_it_was_written(items: list[Item]):
    """A file of a plan is that plan."""
    plan = Plan(1, "s", "q", "now", "me", Selection(types=("a",)), False, tuple(items))  # noqa: FBT003
    assert read_plan(write_plan(plan), "p") == plan
    assert {item.outcome for item in plan.sent} <= {"run", "done"}
    assert sum(count for _, _, count in plan.reasons()) == len(items)


@given(st.binary())
def test_no_plan_is_a_sentence(raw: bytes):
    """Garbage is one clear sentence."""
    with pytest.raises(SettingsError, match="is no plan"):
        read_plan(raw, "p")


def test_a_plan_means_one_state_of_a_message():
    """Another body is changed; another replay count was replayed since; other ids are not meant."""
    meant = Meant([Item("a", "d1", 0, "t", "run")])
    assert meant.standing(entry(id="a", digest="d1", replays=0)) == "meant"
    assert meant.standing(entry(id="a", digest="d2", replays=0)) == "changed"
    assert meant.standing(entry(id="a", digest="d1", replays=1)) == "replayed"
    assert meant.standing(entry(id="b", digest="d1", replays=0)) is None


@given(st.integers(0, 500))
def test_cohorts_are_all_in_steps(count: int):
    """Each item is in one step; the first is one, the second five."""
    items = [Item(str(n), "", 0, "", "run") for n in range(count)]
    steps = [*cohorts(items)]
    assert [item for step in steps for item in step] == items
    assert [len(step) for step in steps][:2] == [
        n for n in (min(count, 1), min(count - 1, 5)) if n > 0
    ]
