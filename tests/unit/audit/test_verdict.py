"""What an audit says in its last line."""

from __future__ import annotations

from collections import Counter

import pytest

from fleet.audit.auditor import Findings
from fleet.audit.books import Books
from fleet.audit.reckoning import Reckoning, Tally
from fleet.audit.verdict import verdict


def found(
    *, done: int = 0, waiting: int = 0, lost: int = 0, doubled: int = 0, odd: int = 0, away: int = 0
):
    """What an audit found, in numbers."""
    tally = Tally(Counter(done=done, waiting=waiting, elsewhere=away))
    reckoning = Reckoning(Counter(published=done + waiting), tally)
    reckoning.unaccounted = [bytes(16)] * lost
    reckoning.roads["unaccounted"] = lost
    books = Books(frozenset(), (), 0, {}, {}, doubled)
    return Findings(reckoning, {}, books, {}, None, odd, ("mailer", "risk"))


@pytest.mark.parametrize(
    ("findings", "said", "clean"),
    [
        (found(done=9), "Every event is accounted for; nothing was done twice.", True),
        (
            found(done=9, waiting=1_200),
            "Every event is accounted for (1,200 still waiting); nothing was done twice.",
            True,
        ),
        (
            found(done=9, waiting=1, away=1_500),
            (
                "Every event is accounted for (1 still waiting; 1,500 for mailer, risk,"
                " not looked at); nothing was done twice."
            ),
            True,
        ),
        (found(), "There is no event to account for; nothing was done twice.", True),
        (found(lost=3), "3 events are unaccounted for; nothing was done twice.", False),
        (
            found(done=9, lost=1, doubled=1),
            "1 event is unaccounted for; 1 effect was had twice.",
            False,
        ),
        (
            found(done=9, doubled=2),
            "Every event is accounted for; 2 effects were had twice.",
            False,
        ),
        (
            found(done=9, odd=115),
            (
                "Every event is accounted for; nothing was done twice."
                " 115 messages in the log without a readable id: no event of this fleet."
            ),
            True,
        ),
    ],
)
def test_the_last_line_says_why(findings: Findings, said: str, *, clean: bool):
    """What is missing and what was done twice is a reason; what nobody can read is told."""
    assert (verdict(findings), findings.is_clean) == (said, clean)
