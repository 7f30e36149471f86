"""The plan: what is declared for which service."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.core.errors import TopologyError
from topology.model import Binding, Lanes, Limits, ServiceLayout
from topology.plan import plan

AGENT = ServiceLayout("trading.agent", ("market.candle", "market.tick", "wallet.*"), lanes=Lanes())
RISK = ServiceLayout("risk", ("*",))


def test_a_service_costs_its_queues_and_nothing_else():
    """A second service adds its work queue, its failed queue and its buckets."""
    one = {queue.name for queue in plan([AGENT]).queues}
    two = {queue.name for queue in plan([AGENT, RISK]).queues}
    buckets = {f"pf.risk.retry.{number:02d}" for number in range(12)}
    assert two - one == {"pf.risk", "pf.risk.failed", *buckets}
    assert one < two


def test_lanes_take_their_type_from_the_work_queue():
    """The lanes' exchange is bound to market.tick, the work queue is not, so nothing is doubled."""
    bindings = [each for each in plan([AGENT]).bindings if each.source == "pf.events"]
    assert {(each.destination, each.key) for each in bindings} == {
        ("pf.trading.agent", "market.candle"),
        ("pf.trading.agent", "wallet.#"),
        ("pf.trading.agent.ticks", "market.tick"),
    }


@pytest.mark.parametrize("pattern", ["market.*", "*"])
def test_a_pattern_that_overlaps_the_lanes_is_refused(pattern: str):
    """A tick that came by lane and by work queue would be handled twice."""
    with pytest.raises(TopologyError, match="would come twice"):
        plan([replace(AGENT, patterns=(pattern,))])


def test_lanes_compare_an_integer():
    """The header `partition` is a number on both sides: the broker tells 3 from "3"."""
    lanes = [each for each in plan([AGENT]).bindings if each.source == "pf.trading.agent.ticks"]
    assert [each.arguments["partition"] for each in lanes] == list(range(16))
    assert all(each.arguments["x-match"] == "all" for each in lanes)


def test_whatever_dead_letters_does_so_at_least_once():
    """Every queue with a dead-letter exchange has the strategy that loses nothing, and its need."""
    letters = [q for q in plan([AGENT]).queues if "x-dead-letter-exchange" in q.arguments]
    assert len(letters) == 1 + 16 + 12
    for queue in letters:
        assert queue.arguments["x-dead-letter-strategy"] == "at-least-once"
        assert queue.arguments["x-overflow"] == "reject-publish"


def test_only_the_work_queue_has_a_ttl():
    """The broker drops no tick silently and lets no failed message go."""
    timed = [q.name for q in plan([AGENT]).queues if "x-message-ttl" in q.arguments]
    assert timed == ["pf.trading.agent"]


def test_what_people_look_into_survives_their_looks():
    """Failed, unrouted and quarantined messages may be looked at a million times."""
    limits = {q.name: q.arguments.get("x-delivery-limit") for q in plan([AGENT]).queues}
    for name in ("pf.trading.agent.failed", "pf.unrouted", "pf.quarantine"):
        assert limits[name] == 1_000_000


def test_a_dropping_service_never_holds_the_bridge_back():
    """With `drop` a full work queue refuses nothing; its oldest goes to the failed queue."""
    queues = {q.name: q for q in plan([replace(RISK, overflow="drop")]).queues}
    work = queues["pf.risk"].arguments
    assert work["x-overflow"] == "drop-head"
    assert work["x-dead-letter-routing-key"] == "pf.risk.failed"
    assert "x-dead-letter-strategy" not in work
    assert queues["pf.risk.retry.00"].arguments["x-overflow"] == "reject-publish"


def test_classic_queues_ask_for_nothing_they_refuse():
    """A classic layout has no argument that only quorum queues know."""
    for queue in plan([AGENT], queue_type="classic").queues:
        assert not {"x-delivery-limit", "x-dead-letter-strategy"} & queue.arguments.keys()
        assert queue.arguments["x-queue-type"] in {"classic", "stream"}


def test_a_plan_can_be_declared_in_its_order():
    """Nothing is bound before it is there, and the flow from the bridge opens last."""
    declared = {""}
    for each in plan([AGENT, RISK]):
        if isinstance(each, Binding):
            assert {each.source, each.destination} <= declared
        else:
            declared.add(each.name)
    *_, last = plan([AGENT, RISK])
    assert last == Binding("pf.ingest", "exchange", "pf.events", "#")


def test_what_is_fed_includes_the_lanes_type():
    """The recorded patterns name what the lanes carry, whether or not a handler names it."""
    assert replace(AGENT, patterns=("wallet.*",)).fed == ("market.tick", "wallet.*")


@pytest.mark.parametrize(
    ("service", "words"),
    [
        (replace(RISK, name="Risk!"), "is no service name"),
        (replace(RISK, name=""), "is no service name"),
        (replace(RISK, name="r" * 101), "is no service name"),
        (replace(RISK, name="risk\n"), "is no service name"),
        (replace(RISK, patterns=()), "nothing would reach it"),
        (replace(RISK, patterns=("wallet.#",)), "is no pattern"),
        (replace(RISK, buckets=0), "buckets is 0, allowed are 1 to 16"),
        (replace(RISK, limits=Limits(delivery_limit=5)), "delivery_limit is 5"),
        (replace(RISK, limits=Limits(ttl_ms=0)), "ttl_ms is 0"),
        (replace(AGENT, lanes=Lanes(partitions=0)), "partitions is 0"),
        (replace(AGENT, lanes=Lanes(type="market.*"), patterns=()), "not a pattern"),
    ],
)
def test_a_service_that_cannot_be_is_one_clear_sentence(service: ServiceLayout, words: str):
    """What is wrong is named together with what would be right."""
    with pytest.raises(TopologyError, match=words):
        plan([service])


@pytest.mark.parametrize("names", [("risk", "risk"), ("risk", "risk.failed"), ("events.log", "a")])
def test_two_services_never_share_a_queue(names: tuple[str, str]):
    """A name that another service, or the fleet itself, has is refused."""
    with pytest.raises(TopologyError, match="give one of them another name"):
        plan([replace(RISK, name=name) for name in names])


@pytest.mark.parametrize("name", ["ingest", "events", "redeliver"])
def test_a_queue_has_no_exchange_s_name(name: str):
    """Permissions go by name, so a service's queue must not be called like an exchange."""
    with pytest.raises(TopologyError, match=f"pf.{name} is an exchange of the fleet"):
        plan([replace(RISK, name=name)])
