"""Faults as text and as dice."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.errors import SettingsError
from sandbox.faults import Faults


def test_faults_come_as_often_as_they_were_asked_for() -> None:
    """Over many calls each fault has its rate, the same for the same seed, and is counted."""
    text = "errors=0.3, latency=500ms,timeouts=0.05,lost_answers=0.05"
    faults, again = Faults.parse(text, 3), Faults.parse(text, 3)
    drawn = [faults.draw() for _ in range(10_000)]
    assert drawn == [again.draw() for _ in range(10_000)]
    assert {fault.latency for fault in drawn} == {0.5}
    counts = Counter(fault.name for fault in drawn)
    assert 2700 < counts["errors"] < 3300
    assert 400 < counts["timeouts"] < 600
    assert 400 < counts["lost_answers"] < 600
    del counts[""]
    assert faults.summary() == {"calls": 10_000, **counts}


def test_no_text_means_no_faults() -> None:
    """Without a wish nothing is injected."""
    faults = Faults.parse("", 1)
    assert {faults.draw() for _ in range(100)} == {("", 0.0)}


@given(st.text(max_size=30))
def test_any_text_is_faults_or_one_sentence(text: str) -> None:
    """A wrong text is an operator's error, never another one."""
    with suppress(SettingsError):
        Faults.parse(text, 1)


@pytest.mark.parametrize(
    "text",
    ["errors=2", "errors", "errors=-1", "errors=nan", "latency=5", "latency=5h", "latency=61s",
     "sleep=1", "errors=0.6,timeouts=0.6", "errors=1e-3"],
)  # fmt: skip
def test_a_wrong_wish_is_refused(text: str) -> None:
    """What is not understood is not guessed."""
    with pytest.raises(SettingsError):
        Faults.parse(text, 1)
