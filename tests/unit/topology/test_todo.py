"""What a migration would do, and what is said about each difference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from topology import names
from topology.check import compare
from topology.export import definitions
from topology.management import Broker
from topology.model import Lanes, Plan, ServiceLayout
from topology.plan import plan
from topology.remedy import remedies
from topology.todo import Todo, todo

WAITING = {"pf.mine": 1200}
MINE = ServiceLayout("mine", ("wallet.*",), lanes=Lanes(partitions=3), buckets=2)


def broker(layout: Plan) -> Broker:
    """A broker that has this layout."""
    found = definitions(layout)
    queues = ({**each, "exclusive": False} for each in found["queues"])
    return Broker(tuple(found["exchanges"]), tuple(queues), tuple(found["bindings"]))


def changed(found: Broker, queue: str, **arguments: Any) -> Broker:
    """The same, one queue of it with other arguments."""
    queues = (
        {**each, "arguments": {**each["arguments"], **arguments}} if each["name"] == queue else each
        for each in found.queues
    )
    return replace(found, queues=tuple(queues))


def without(found: Broker, queues: Iterable[str]) -> Broker:
    """The same without these queues and what leads to them."""
    gone = set(queues)
    return replace(
        found,
        queues=tuple(each for each in found.queues if each["name"] not in gone),
        bindings=tuple(each for each in found.bindings if each["destination"] not in gone),
    )


def test_a_broker_as_planned_has_nothing_to_do():
    """No renewal, no resize, nothing to take away, nothing left."""
    work = todo(plan([MINE]), broker(plan([MINE])))
    assert work == Todo((), (), (), ())


def test_a_queue_with_another_argument_is_made_anew():
    """With what leads to it, and with its service where it is a lane."""
    layout = plan([MINE])
    found = changed(broker(layout), "pf.mine", **{"x-max-length": 7})
    (renewal,) = todo(layout, found).renewals
    assert (renewal.queue.name, renewal.service) == ("pf.mine", "")
    assert {each.source for each in renewal.bindings} == {names.EVENTS, names.REDELIVER}
    found = changed(broker(layout), "pf.mine.ticks.1", **{"x-max-length": 7})
    assert [each.service for each in todo(layout, found).renewals] == ["mine"]


def test_what_was_interrupted_is_gone_on_with():
    """A queue that is as planned, or missing, but whose messages still wait aside."""
    layout = plan([MINE])
    aside = {"name": names.moving("pf.mine"), "arguments": {}}
    found = replace(broker(layout), queues=(*broker(layout).queues, aside))
    assert [each.queue.name for each in todo(layout, found).renewals] == ["pf.mine"]
    assert [each.queue.name for each in todo(layout, without(found, ["pf.mine"])).renewals] == [
        "pf.mine"
    ]


def test_a_lane_that_is_just_being_made_anew_is_no_other_number():
    """Killed between deleting and declaring it, the next run does not make lanes of other lanes."""
    layout = plan([MINE])
    lane = "pf.mine.ticks.2"
    aside = {"name": names.moving(lane), "arguments": {}}
    found = without(broker(layout), [lane])
    work = todo(layout, replace(found, queues=(*found.queues, aside)))
    assert not work.resizes
    assert [each.queue.name for each in work.renewals] == [lane]


def test_lanes_in_another_number_are_resized_and_never_renewed_one_by_one():
    """More or fewer: all that are there, whatever their arguments."""
    more = plan([replace(MINE, lanes=Lanes(partitions=5))])
    found = changed(broker(plan([MINE])), "pf.mine.ticks.1", **{"x-max-length": 7})
    work = todo(more, found)
    assert [each.found for each in work.resizes] == [tuple(f"pf.mine.ticks.{n}" for n in range(3))]
    assert not work.renewals
    assert not work.unbind
    (fewer,) = todo(plan([MINE]), broker(more)).resizes
    assert len(fewer.found) == 5


def test_each_difference_says_what_would_be_done():
    """By apply, by migrate with how many messages, or by the operator."""
    layout = plan([MINE])
    found = changed(broker(layout), "pf.mine", **{"x-max-length": 7})
    found = changed(found, names.LOG, **{"x-max-age": "1D"})
    found = without(found, [names.UNROUTED])
    differences = compare(layout, found)
    said = dict(
        zip(map(str, differences), remedies(layout, differences, {"pf.mine": 1200}), strict=True)
    )
    assert said["missing: queue pf.unrouted"] == "`apply` adds it"
    assert said["different: queue pf.mine: x-max-length is 7, planned 100000"] == (
        "`migrate` makes it anew and moves 1,200 messages"
    )
    assert said['different: queue pf.events.log: x-max-age is "1D", planned "30D"'] == "left to you"


def test_a_lane_too_few_is_for_migrate():
    """`apply` would give keys other lanes while their events still wait in the old ones."""
    more = plan([replace(MINE, lanes=Lanes(partitions=5))])
    differences = compare(more, broker(plan([MINE])))
    assert {*remedies(more, differences, {})} == {"`migrate` makes the lanes anew"}


def test_an_interrupted_migration_is_a_difference():
    """What waits aside is named, with the command that brings it back."""
    layout = plan([MINE])
    aside = {"name": names.moving("pf.mine"), "arguments": {}}
    differences = compare(layout, replace(broker(layout), queues=(*broker(layout).queues, aside)))
    assert [str(each) for each in differences] == [
        "superfluous: queue pf.mine:moving: a migration was interrupted"
    ]
    (said,) = remedies(layout, differences, {"pf.mine:moving": 3})
    assert said == "`migrate` brings it to its end and moves 3 messages"
