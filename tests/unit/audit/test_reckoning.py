"""The reckoning: every event in exactly one class, and sums that hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.audit.ids import Id
from fleet.audit.reckoning import Evidence, Kind, Part, Tally, reckon

CLASSES = ("done", "skipped", "expired", "failed", "waiting", "unrouted", "elsewhere")
ROADS = ("published", "shed", "quarantined", "missed", "unaccounted")
TYPES = ("market.tick", "order.requested", "job.failed")


def event(number: int) -> Id:
    """The id of a number."""
    return number.to_bytes(16, "big")


def takes(**kinds: Kind) -> Callable[[str], Kind]:
    """A service that takes types by the last word of their name."""
    return lambda event_type: kinds.get(event_type.partition(".")[2], "")


ids = st.integers(1, 12).map(event)
sets = st.frozensets(ids, max_size=6)
kinds = st.fixed_dictionaries(
    dict.fromkeys(("tick", "requested", "failed"), st.sampled_from(["", "journaled", "pure"]))
)
outcomes = st.sampled_from(["done", "skipped", "expired", "failed", ""])
parts = st.builds(
    lambda name, kinds, journal, failed, holds, since: Part(
        name, takes(**kinds), journal, failed, holds, lambda _: since
    ),
    name=st.sampled_from("abc"),
    kinds=kinds,
    journal=st.dictionaries(ids, outcomes, max_size=6),
    failed=sets,
    holds=st.booleans(),
    since=ids,
)
evidences = st.builds(
    Evidence,
    log=st.dictionaries(ids, st.sampled_from(TYPES), max_size=8),
    parts=st.lists(parts, max_size=2, unique_by=lambda part: part.name),
    shed=sets,
    unrouted=sets,
    quarantined=sets,
    nameless=st.integers(0, 3),
    missed=st.lists(st.tuples(ids, ids), max_size=2),
    witness=sets,
    elsewhere=st.sampled_from(TYPES).map(lambda one: lambda event_type: event_type == one),
    until=ids,
)


@given(evidences)
def test_every_event_is_in_exactly_one_class(evidence: Evidence):
    """However the evidence contradicts itself, the sums of both equations hold."""
    known = {*evidence.log, *evidence.shed, *evidence.quarantined, *evidence.witness}
    known |= {each for part in evidence.parts for each in part.journal}
    known = {each for each in known if each <= evidence.until}
    result = reckon(evidence)
    assert result.emitted == len(known) + evidence.nameless
    assert result.emitted == sum(result.roads[road] for road in ROADS)
    fleet = result.fleet
    assert fleet.published == result.roads["published"]
    assert fleet.published == sum(fleet.counts[c] for c in CLASSES) + len(fleet.unaccounted)


@given(evidences)
def test_every_unaccounted_event_is_named_once(evidence: Evidence):
    """The ids named are as many as are counted, on either side of the exchange, in order."""
    result = reckon(evidence)
    named = result.unaccounted
    assert len(named) == result.roads["unaccounted"] + len(result.fleet.unaccounted)
    assert named == sorted(set(named))


@given(evidences)
def test_the_sums_hold_for_each_service(evidence: Evidence):
    """What a service was given is what it did with it, and what waits or is missing."""
    for tally in reckon(evidence).services.values():
        assert tally.published == sum(tally.counts[c] for c in CLASSES) + len(tally.unaccounted)
        assert tally.by_count <= tally.counts["done"]


@given(evidences)
def test_nothing_with_a_journal_row_is_ever_unaccounted(evidence: Evidence):
    """In the service that has the row, it is proof enough."""
    services = reckon(evidence).services
    for part in evidence.parts:
        rows = {each for each, outcome in part.journal.items() if outcome}
        assert not rows & set(services[part.name].unaccounted)


def one(evidence: Evidence) -> tuple[dict[str, int], Tally]:
    """How event 1 left its source, and what became of it."""
    result = reckon(evidence)
    return dict(+result.roads), result.fleet


AGENT = takes(tick="journaled", requested="journaled")
TICK = {event(1): "market.tick"}


@pytest.mark.parametrize("outcome", ["done", "skipped", "expired", "failed"])
def test_a_row_says_what_became_of_an_event(outcome: str):
    """The journal decides."""
    roads, fleet = one(Evidence(TICK, [Part("a", AGENT, {event(1): outcome})]))
    assert roads == {"published": 1}
    assert fleet.counts == {outcome: 1}


def test_without_a_row_it_waits_until_the_queues_are_drained():
    """The same event without a row: waiting, then unaccounted, and named."""
    held = reckon(Evidence(TICK, [Part("a", AGENT, {}, holds=True)]))
    assert held.fleet.counts == {"waiting": 1}
    drained = reckon(Evidence(TICK, [Part("a", AGENT, {})]))
    assert drained.unaccounted == [event(1)]
    assert drained.services["a"].unaccounted == [event(1)]


def test_done_beats_shed():
    """A nack of one full queue does not undo what another queue's worker has done."""
    full = Part("a", AGENT, {})
    roads, _ = one(Evidence(TICK, [full], shed={event(1)}))
    assert roads == {"shed": 1}
    roads, fleet = one(Evidence(TICK, [full, Part("b", AGENT, {event(1): "done"})], {event(1)}))
    assert (roads, fleet.counts) == ({"published": 1}, {"done": 1})


def test_the_least_done_service_speaks_for_the_fleet():
    """One service has done it, another lost it: it is unaccounted, and done where it was done."""
    result = reckon(Evidence(TICK, [Part("a", AGENT, {event(1): "done"}), Part("b", AGENT, {})]))
    assert result.fleet.counts == {"unaccounted": 1}
    assert result.services["a"].counts == {"done": 1}
    assert result.services["b"].unaccounted == [event(1)]


def test_what_nobody_wants_must_lie_with_the_unrouted():
    """It is there, or it is unaccounted."""
    log = {event(1): "job.failed"}
    assert reckon(Evidence(log, [Part("a", AGENT, {})])).unaccounted == [event(1)]
    roads, fleet = one(Evidence(log, [Part("a", AGENT, {})], unrouted={event(1)}))
    assert (roads, fleet.counts) == ({"published": 1}, {"unrouted": 1})


def test_what_is_for_a_service_that_is_not_looked_at_is_elsewhere():
    """Its books are not open: the event is published, and neither done nor lost."""
    log = {event(1): "job.failed"}
    here = Part("a", AGENT, {})
    result = reckon(Evidence(log, [here], elsewhere=lambda each: each == "job.failed"))
    assert (result.unaccounted, result.fleet.counts) == ([], {"elsewhere": 1})
    assert result.services["a"].published == 0


def test_a_new_service_answers_for_what_came_since_it_was_bound():
    """An older event is the other services'; where it was nobody's, it is still missed."""
    log = {event(1): "market.tick", event(2): "market.tick"}
    new = Part("new", AGENT, {event(2): "done"}, since=lambda _: event(2))
    old = Part("old", AGENT, {event(1): "done", event(2): "done"})
    assert reckon(Evidence(log, [old, new])).unaccounted == []
    assert reckon(Evidence(log, [new])).unaccounted == [event(1)]
    lost = Part("new", AGENT, {}, since=lambda _: event(2))
    assert reckon(Evidence(log, [old, lost])).unaccounted == [event(2)]


def test_an_old_event_may_wait_with_a_new_service():
    """It was sent there out of the unrouted: until the queues are empty it is not missed."""
    new = Part("new", AGENT, {}, holds=True, since=lambda _: event(2))
    assert reckon(Evidence(TICK, [new])).fleet.counts == {"waiting": 1}


def test_what_the_broker_parked_itself_is_failed():
    """No row, but it lies in the failed queue."""
    _, fleet = one(Evidence(TICK, [Part("a", AGENT, {}, failed={event(1)})]))
    assert fleet.counts == {"failed": 1}


def test_a_pure_handler_is_believed_by_count():
    """It keeps no journal: drained is done, and the tally says so."""
    pure = takes(tick="pure")
    assert reckon(Evidence(TICK, [Part("a", pure, {}, holds=True)])).fleet.counts == {"waiting": 1}
    tally = reckon(Evidence(TICK, [Part("a", pure, {})])).services["a"]
    assert (tally.counts, tally.by_count) == ({"done": 1}, 1)


def test_what_the_source_emitted_and_nobody_published_is_unaccounted():
    """Unless it was quarantined, or lies in a range that the source could not give again."""
    witness = {event(1), event(5), event(9)}
    evidence = Evidence(
        {}, [], quarantined={event(1)}, missed=[(event(4), event(6))], witness=witness
    )
    result = reckon(evidence)
    assert dict(result.roads) == {"quarantined": 1, "missed": 1, "unaccounted": 1}
    assert result.unaccounted == [event(9)]


def test_the_ends_of_a_missed_range_are_not_missed():
    """The cursor before it and the event after it were both had."""
    evidence = Evidence({}, [], missed=[(event(4), event(6))], witness={event(4), event(6)})
    assert reckon(evidence).unaccounted == [event(4), event(6)]
