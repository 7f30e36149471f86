"""What is logged of deliveries that fail: enough to see why, never a line for each of thousands."""

from __future__ import annotations

import json
from typing import Any, cast

from fleet.amqp.delivery import Delivery
from fleet.core.decision import Ack, Decision, Fail, Retry
from fleet.core.envelope import Headers
from fleet.core.failure import failure
from fleet.telemetry import log as logs
from workers.job import Job
from workers.mishaps import EVERY_S, KINDS, Mishaps

ODD = failure("logic", "ValueError", "odd")


class Origin:
    """Where the delivery came from."""

    queue = "pf.mine"


class Delivered:
    """As much of a delivery as a line says."""

    origin = Origin()


def decided(decision: Decision) -> Job:
    """A job with its decision."""
    job = Job(cast("Delivery", Delivered()), Headers(attempt=2))
    job.decision = decision
    job.where = "mine.py:7 warn"
    return job


def lines(capsys: Any) -> list[dict[str, Any]]:
    """What was said since the last look."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_the_first_of_a_kind_is_told_and_says_where_it_was_raised(capsys: Any):
    """Why, where, in which attempt; a retry says when; what is done is not told."""
    logs.configure(json=True)
    mishaps = Mishaps(lambda: 0.0)
    for decision in (Ack(), Fail(ODD), Retry(1.5, ODD)):
        mishaps.decided(decided(decision))
    failed, again = lines(capsys)
    assert failed["event"] == "failed; it waits in the failed queue"
    assert (failed["why"], failed["at"]) == ("ValueError: odd", "mine.py:7 warn")
    assert (failed["attempt"], failed["queue"]) == (2, "pf.mine")
    assert (again["event"], again["again_in_s"]) == ("failed; it is tried again", 1.5)


def test_more_of_a_kind_are_counted(capsys: Any):
    """A thousand alike are two lines in a minute, the second with the number of the others."""
    logs.configure(json=True)
    now = [0.0]
    mishaps = Mishaps(lambda: now[0])
    for _ in range(1_000):
        mishaps.decided(decided(Fail(ODD)))
    now[0] = EVERY_S
    mishaps.decided(decided(Fail(ODD)))
    assert [line["count"] for line in lines(capsys)] == [1, 1_000]


def test_made_up_kinds_do_not_fill_the_memory():
    """Only so many are remembered."""
    mishaps = Mishaps(lambda: 0.0)
    for number in range(3 * KINDS):
        mishaps.decided(decided(Fail(failure("logic", f"Odd{number}", "odd"))))
    assert len(mishaps._kinds) <= KINDS
