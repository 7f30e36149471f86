"""The closing report of a demo."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from rich.console import Console

from fleet.audit.auditor import Findings
from fleet.audit.books import Books, Journal
from fleet.audit.reckoning import Reckoning, Tally
from fleet.audit.witness import Ledger
from fleet.demo.story import Ending
from fleet.demo.summary import figures, tell


def ending(*, ms: int = 4, skipped_lines: int = 0, odd: int = 0, stalled: str = "") -> Ending:
    """The end of a small demo."""
    reckoning = Reckoning(Counter(published=40), Tally(Counter(done=38, skipped=2)))
    journal = Journal(done_by=Counter({"worker-1": 38}), ages_ms=Counter({ms: 30}))
    books = Books(frozenset(), (), 0, {}, {}, 0)
    ledger = Ledger(frozenset(), opened=8, closed=5, duplicated=0)
    findings = Findings(reckoning, {"a": journal}, books, {}, ledger, odd)
    return Ending(findings, 1.25, ("worker-1",), stalled, skipped_lines)


def told(end: Ending) -> str:
    """What a person reads, with one space between words."""
    out = io.StringIO()
    tell(end, Console(file=out, width=80))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    return " ".join(out.getvalue().replace("│", " ").split())


def test_a_stranger_can_read_it():
    """Groups have titles, words their meaning, open orders their number; the last line sums up."""
    said = told(ending())
    for part in (
        "Orders at the venue opened 8 closed 5 still open 3",
        "shed 0 live prices refused by a full queue",
        "skipped 2 nothing to do",
        "Handled by lanes follow pairs",
        "worker-1 38",
    ):
        assert part in said
    assert said.endswith("Every event is accounted for; nothing was done twice.")


@pytest.mark.parametrize(("ms", "marked"), [(4, False), (250, False), (251, True)])
def test_a_backlog_is_marked(ms: int, *, marked: bool):
    """A latency that is mostly waiting is no measure of the fleet."""
    assert ("a backlog" in told(ending(ms=ms))) == marked


def test_skipped_lines_are_told_and_change_no_key():
    """In the text; the object for programs stays as it is."""
    assert "Skipped 3 lines of the tape: no trades." in told(ending(skipped_lines=3))
    assert "Skipped" not in told(ending())
    assert figures(ending(skipped_lines=3)) == figures(ending())


def test_nothing_unproven_is_a_success():
    """A stall, or a message of our own that nobody can read."""
    assert ending().is_proven
    assert not ending(stalled="Nothing has moved for 60 s.").is_proven
    assert not ending(odd=1).is_proven
    assert figures(ending(odd=1))["unaccounted"] == 1
