"""Differences between a plan and what the management API found."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from topology.check import compare
from topology.export import definitions
from topology.management import Broker
from topology.model import Lanes, ServiceLayout
from topology.plan import plan

PLAN = plan([ServiceLayout("trading.agent", ("wallet.*",), lanes=Lanes(partitions=2), buckets=2)])


@pytest.fixture
def found() -> dict[str, Any]:
    """A broker that has the plan, in the management API's words."""
    whole = copy.deepcopy(definitions(PLAN))
    for queue in whole["queues"]:
        queue["exclusive"] = False
    return whole


def differences(found: dict[str, Any]) -> list[str]:
    """What `fleet topology check` prints."""
    broker = Broker(*(tuple(found[what]) for what in ("exchanges", "queues", "bindings")))
    return [str(difference) for difference in compare(PLAN, broker)]


def test_a_broker_as_planned_has_no_difference(found: dict[str, Any]):
    """Nothing is reported where nothing differs."""
    assert differences(found) == []


def test_each_difference_is_one_line_with_both_values(found: dict[str, Any]):
    """An argument, a type or a durability that differs is named with both values."""
    queues = {queue["name"]: queue for queue in found["queues"]}
    queues["pf.trading.agent"]["arguments"]["x-max-length"] = 5
    queues["pf.trading.agent"]["durable"] = False
    del queues["pf.unrouted"]["arguments"]["x-overflow"]
    queues["pf.quarantine"]["arguments"]["x-expires"] = 9
    found["exchanges"][-1]["type"] = "direct"
    assert sorted(differences(found)) == [
        'different: exchange pf.trading.agent.ticks: type is "direct", planned "headers"',
        "different: queue pf.quarantine: x-expires is 9, planned none",
        "different: queue pf.trading.agent: durable is false, planned true",
        "different: queue pf.trading.agent: x-max-length is 5, planned 100000",
        'different: queue pf.unrouted: x-overflow is none, planned "reject-publish"',
    ]


def test_what_is_missing_is_named(found: dict[str, Any]):
    """A missing queue, exchange and binding are a line each."""
    found["queues"] = [q for q in found["queues"] if q["name"] != "pf.unrouted"]
    found["exchanges"] = [e for e in found["exchanges"] if e["name"] != "pf.redeliver"]
    found["bindings"] = [b for b in found["bindings"] if b["routing_key"] != "wallet.#"]
    assert differences(found) == [
        "missing: exchange pf.redeliver",
        "missing: queue pf.unrouted",
        "missing: binding pf.events -> queue pf.trading.agent on wallet.#",
    ]


def test_a_lane_too_many_is_superfluous(found: dict[str, Any]):
    """After a service shrank, its old lanes, buckets and ways are named: they swallow events."""
    found["queues"].append(_queue("pf.trading.agent.ticks.2"))
    found["queues"].append(_queue("pf.trading.agent.retry.02"))
    lane = "pf.trading.agent.ticks.2"
    found["bindings"].append(_binding("pf.trading.agent.ticks", lane, "", {}))
    found["bindings"].append(_binding("pf.events", "pf.trading.agent", "job.#", {}))
    assert differences(found) == [
        "superfluous: queue pf.trading.agent.retry.02",
        "superfluous: queue pf.trading.agent.ticks.2",
        "superfluous: binding pf.events -> queue pf.trading.agent on job.#",
        "superfluous: binding pf.trading.agent.ticks -> queue pf.trading.agent.ticks.2",
    ]


def test_other_services_are_none_of_its_business(found: dict[str, Any]):
    """Another service's queues and bindings, and the default exchange's, are no difference."""
    for name in ("pf.trading.agent.two", "pf.risk", "mine"):
        found["queues"].append(_queue(name))
        found["bindings"].append(_binding("pf.events", name, "#", {}))
        found["bindings"].append(_binding("", name, name, {}))
    found["bindings"].append(_binding("", "pf.trading.agent", "pf.trading.agent", {}))
    assert differences(found) == []


def _queue(name: str) -> dict[str, Any]:
    return {"name": name, "durable": True, "auto_delete": False, "arguments": {}}


def _binding(source: str, queue: str, key: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "source": source,
        "destination": queue,
        "destination_type": "queue",
        "routing_key": key,
        "arguments": arguments,
    }
