"""What it means that a user may do more, or less, than its part of the fleet needs."""

from __future__ import annotations

import pytest

from fleet.doctor.rights import Right, judge, part
from topology.model import Plan, ServiceLayout
from topology.plan import plan
from topology.users import users

ONE = plan([ServiceLayout("mine", ("a.*",))])
TWO = plan([ServiceLayout("mine", ("a.*",)), ServiceLayout("their.mine", ("a.*",))])
WORKER = next(each for each in users(ONE) if each.name == "worker")


@pytest.mark.parametrize(
    ("layout", "name", "found"),
    [
        (ONE, "worker", "worker"),
        (ONE, "paper.worker", "worker"),
        (ONE, "coworker", None),
        (ONE, "guest", None),
        (TWO, "worker", None),
        (TWO, "x-worker.their.mine", "worker.their.mine"),
        (TWO, "worker.mine", "worker.mine"),
    ],
)
def test_a_user_is_known_by_its_name_after_any_prefix(layout: Plan, name: str, found: str | None):
    """The longest that fits; a name that only ends alike is another's."""
    known = part(layout, name)
    assert (known and known.name) == found


def test_too_little_fails_and_too_much_is_told():
    """What is needed and refused stops the fleet; what is granted for nothing is a way in."""
    fine = [
        Right("take from pf.mine", needed=True, granted=True),
        Right("x", needed=False, granted=False),
    ]
    (well,) = judge("worker", WORKER, fine)
    assert well.level == "ok"
    less = Right("publish to pf.ingest", needed=True, granted=False)
    more = [Right(f"take from {n}", needed=False, granted=True) for n in "abcde"]
    found = judge("worker", WORKER, [*fine, less, *more])
    assert [each.level for each in found] == ["fail", "warn"]
    assert "may not publish to pf.ingest, which worker has to" in found[0].text
    assert "may take from a, take from b, take from c and 2 more, which worker" in found[1].text
