"""What an audit says in its last line."""

from __future__ import annotations

from collections import Counter

import pytest

from fleet.audit.auditor import Findings
from fleet.audit.books import Books
from fleet.audit.reckoning import Reckoning, Tally
from fleet.audit.verdict import verdict


def found(*, lost: int = 0, doubled: int = 0, odd: int = 0, **counted: int):
    """What an audit found, in numbers."""
    tally = Tally(Counter(counted))
    reckoning = Reckoning(Counter(published=tally.counts.total()), tally)
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
            found(done=9, waiting=1, unrouted=2, elsewhere=1_500),
            (
                "Every event is accounted for (1 still waiting; 2 that no service takes,"
                " in pf.unrouted; 1,500 for mailer, risk, not looked at); nothing was done twice."
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
