"""What a broker's version, figures and policies mean for the fleet; pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from yarl import URL

from fleet.doctor.finding import Finding, worst_or
from fleet.settings import is_near

if TYPE_CHECKING:
    from topology.management import Found  # a worker at its start needs no HTTP client

OLDEST: Final = (3, 10)
WANTING_MORE: Final = frozenset({(4, 2, 6), (4, 3, 0)})
"""Versions on which a look at a queue needs the permission to delete it."""
CONSUMER_TIMEOUT_S: Final = 1_800.0
"""The broker's default, which no client can ask for."""
SCARCE: Final = 2
"""So many times the limit at which the broker stops should be free."""
_BENT: Final = ("message-ttl", "max-length", "max-length-bytes", "delivery-limit", "expires")


def version(product: str, text: str) -> Finding:
    """What this version of the broker can do for the fleet."""
    numbers = tuple(map(int, re.findall(r"\d+", text)[:3]))
    name = f"{product} {text}"
    if product != "RabbitMQ" or not numbers:
        fix = "Use RabbitMQ 3.10 or newer."
        return Finding("version", "warn", f"The broker is {name or 'unnamed'}, not RabbitMQ.", fix)
    if numbers < OLDEST:
        fix = "Upgrade to 3.10 or newer."
        return Finding("version", "fail", f"{name} drops delayed messages when it is killed.", fix)
    if numbers in WANTING_MORE:
        text = f"On {name} the fleet's own users may not look at queues."
        return Finding("version", "warn", text, "Upgrade by one patch release.")
    return Finding("version", "ok", f"{name}.")


def nodes(found: Iterable[Found]) -> list[Finding]:
    """Alarms, partitions and the space left, of each node of the cluster."""
    every = list(found)
    least = min((int(each.get("disk_free", 0)) for each in every), default=0)
    text = f"{len(every)} of {len(every)} nodes run without an alarm; {_gib(least)} are free."
    return worst_or([finding for each in every for finding in _node(each)], "nodes", text)


def policies(queues: Iterable[Found]) -> list[Finding]:
    """The policies that change what the plan says of a queue of the fleet."""
    bent: dict[str, list[str]] = {}
    for queue in queues:
        definition = queue.get("effective_policy_definition") or {}
        if not str(queue["name"]).startswith("pf.") or not isinstance(definition, Mapping):
            continue
        for key in sorted(definition.keys() & _BENT):
            bent.setdefault(f"{key} = {definition[key]}", []).append(str(queue["name"]))
    fix = "Take the policy away, or let its pattern leave names out that begin with pf."
    found = [
        Finding("policies", "warn", f"A policy sets {what} on {_some(where)}.", fix)
        for what, where in bent.items()
    ]
    return worst_or(found, "policies", "No policy changes how long or how often messages wait.")


def consumer_timeouts(queues: Iterable[Found]) -> dict[str, float]:
    """The seconds after which the broker takes a delivery back, by queue, where a policy says."""
    found = {}
    for queue in queues:
        sources: list[Any] = [queue.get("effective_policy_definition"), queue.get("arguments")]
        for key in ("consumer-timeout", "x-consumer-timeout"):
            for source in sources:
                if isinstance(source, Mapping) and isinstance(source.get(key), int):
                    found[str(queue["name"])] = source[key] / 1000
    return found


def deadline(
    service: str, longest_s: float, in_hand: int, at_a_time: int, limit_s: float
) -> Finding:
    """Whether a delivery that waits behind others is settled before the broker takes it back.

    `longest_s` is the longest deadline of a handler; `in_hand` the prefetch.
    """
    if longest_s >= limit_s:
        text = f"A handler of {service} may take {longest_s:g} s, the broker waits {limit_s:g} s."
        return Finding("timeout", "fail", text, "Shorten its deadline or raise consumer_timeout.")
    rounds = -(-in_hand // at_a_time)
    if longest_s * rounds > limit_s:
        text = (
            f"If every handler of {service} took its {longest_s:g} s, the last of {in_hand}"
            f" deliveries would wait {longest_s * rounds:g} s, and the broker takes it back after"
            f" {limit_s:g} s."
        )
        return Finding("timeout", "warn", text, "Lower PREFETCH or raise CONCURRENCY.")
    text = f"Handlers of {service} end long before the broker's {limit_s:g} s."
    return Finding("timeout", "ok", text)


def encryption(address: URL) -> Finding | None:
    """What is wrong with how we speak to the broker; None where nothing is."""
    if address.scheme == "amqps" and address.query.get("no_verify_ssl", "0") == "0":
        text = "What goes to the broker is encrypted, and its certificate is verified."
        return Finding("tls", "ok", text)
    if address.scheme == "amqps":
        text = "The broker's certificate is not verified: anybody could be it."
        return Finding("tls", "warn", text, "Take no_verify_ssl out of AMQP_URL; set AMQP_CA_FILE.")
    if is_near(address.host or ""):
        return None
    text = "What goes to the broker, its password too, is not encrypted."
    return Finding("tls", "warn", text, "Write amqps:// in AMQP_URL, and AMQP_CA_FILE.")


def user(name: str, tags: str, host: str) -> Finding:
    """Whether our user is more than it need be."""
    fix = "Give each part its own user: `fleet topology users --apply --passwords FOLDER`."
    if "administrator" in tags and not is_near(host):
        return Finding("user", "warn", f"We are {name!r}, who may do everything.", fix)
    as_what = f" ({tags})" if tags else ""
    return Finding("user", "ok", f"The management API knows us as {name!r}{as_what}.")


def _node(node: Found) -> Iterable[Finding]:
    name = node.get("name", "?")
    if not node.get("running", True):
        yield Finding("nodes", "fail", f"The node {name} is down.", "Start it.")
        return
    if node.get("partitions"):
        fix = "Restart the node that was cut off; set cluster_partition_handling."
        yield Finding("nodes", "fail", f"{name} does not see all other nodes.", fix)
    if node.get("mem_alarm"):
        fix = "Give the node memory, or let consumers work off what waits."
        yield Finding("nodes", "fail", f"{name} is out of memory and takes nothing.", fix)
    free, limit = int(node.get("disk_free", 0)), int(node.get("disk_free_limit", 0))
    if node.get("disk_free_alarm"):
        text = f"{name} is out of disk ({_gib(free)} free) and takes nothing."
        yield Finding("nodes", "fail", text, "Make room on its disk.")
    elif free < SCARCE * limit:
        text = f"{name} has {_gib(free)} of disk left and stops at {_gib(limit)}."
        yield Finding("nodes", "warn", text, "Make room on its disk.")


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
