"""The whole layout on one page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from topology import names
from topology.model import (
    Arguments,
    Binding,
    Exchange,
    Plan,
    Queue,
    QueueType,
    ServiceLayout,
)
from topology.patterns import binding_key
from topology.rules import check_service, check_unique

LOG_AGE: Final = "30D"
"""How long the log keeps events; a policy can shorten it, nothing but a new stream lengthen it."""
LOOKS: Final = 1_000_000
"""A person's look counts as a delivery up to 4.2, and 4.0's default of 20 loses what was looked
at; -1 would lose it at the first look before 4.0."""
QUARANTINE_BYTES: Final = 1 << 30
_ELSEWHERE: Final = {"alternate-exchange": names.UNROUTED}


def plan(services: Sequence[ServiceLayout], *, queue_type: QueueType = "quorum") -> Plan:
    """The layout for these services; raises TopologyError where they cannot stand together.

    Classic queues are for benchmarks: they have no delivery limit and lose dead-lettered messages
    when the broker is killed.
    """
    for service in services:
        check_service(service)
    whole = Plan(
        services=tuple(services),
        exchanges=(*_shared_exchanges(), *(e for s in services for e in _exchanges(s))),
        queues=(
            *_shared_queues(queue_type),
            *(q for s in services for q in _queues(s, queue_type)),
        ),
        # The flow opens last: a service is bound before the first event can come.
        bindings=(*(b for s in services for b in _bindings(s)), *_shared_bindings()),
    )
    check_unique(whole)
    return whole


def _shared_exchanges() -> Iterator[Exchange]:
    yield Exchange(names.UNROUTED, "fanout", note="what nobody wanted")
    yield Exchange(names.QUARANTINE, "fanout", note="frames the bridge could not read")
    yield Exchange(names.REDELIVER, "direct", _ELSEWHERE, "to one queue by its name")
    yield Exchange(names.DLX, "direct", _ELSEWHERE, "to a failed queue by its name")
    # An alternate exchange fires only where nothing matched, so the log, which matches all, hangs
    # on an exchange of its own.
    yield Exchange(names.EVENTS, "topic", _ELSEWHERE, "where services bind")
    yield Exchange(names.INGEST, "topic", note="where every event is published")


def _shared_queues(kind: QueueType) -> Iterator[Queue]:
    yield Queue(
        names.LOG, {"x-queue-type": "stream", "x-max-age": LOG_AGE}, "every event, replayable"
    )
    yield Queue(names.UNROUTED, looked_into(kind), "what nobody wanted")
    # Garbage is bounded: beyond it the bridge keeps only its hash and reason, in the store.
    quarantine: Arguments = {**looked_into(kind), "x-max-length-bytes": QUARANTINE_BYTES}
    yield Queue(names.QUARANTINE, quarantine, "frames the bridge could not read")


def _shared_bindings() -> Iterator[Binding]:
    yield Binding(names.UNROUTED, "queue", names.UNROUTED)
    yield Binding(names.QUARANTINE, "queue", names.QUARANTINE)
    yield Binding(names.INGEST, "queue", names.LOG, "#")
    yield Binding(names.INGEST, "exchange", names.EVENTS, "#")


def _exchanges(service: ServiceLayout) -> Iterator[Exchange]:
    if service.lanes:
        name = names.lanes_exchange(service.name, service.lanes.type)
        yield Exchange(name, "headers", _ELSEWHERE, f"{service.lanes.type} to its lane")


def _queues(service: ServiceLayout, kind: QueueType) -> Iterator[Queue]:
    yield Queue(names.failed(service.name), looked_into(kind), "failed; a person decides")
    yield Queue(names.work_queue(service.name), _work(service, kind), "work")
    for lane in service.lane_queues:
        yield Queue(lane, _lane_arguments(service, kind), "lane")
    for number in range(service.buckets):
        seconds = names.bucket_ms(number) / 1000
        name = names.retry(service.name, number)
        yield Queue(name, _bucket(service, kind), f"delays up to {seconds:g} s")


def _bindings(service: ServiceLayout) -> Iterator[Binding]:
    work, failed = names.work_queue(service.name), names.failed(service.name)
    yield Binding(names.DLX, "queue", failed, failed)
    yield Binding(names.REDELIVER, "queue", work, work)
    for number in range(service.buckets):
        bucket = names.retry(service.name, number)
        yield Binding(names.REDELIVER, "queue", bucket, bucket)
    yield from _lane_bindings(service)
    for pattern in service.fed:
        if not (service.lanes and pattern == service.lanes.type):
            yield Binding(names.EVENTS, "queue", work, binding_key(pattern))


def _lane_bindings(service: ServiceLayout) -> Iterator[Binding]:
    if not service.lanes:
        return
    exchange = names.lanes_exchange(service.name, service.lanes.type)
    for number, lane in enumerate(service.lane_queues):
        yield Binding(names.REDELIVER, "queue", lane, lane)
        match: Arguments = {"x-match": "all", names.PARTITION: number}
        yield Binding(exchange, "queue", lane, arguments=match)
    yield Binding(names.EVENTS, "exchange", exchange, service.lanes.type)


def looked_into(kind: QueueType) -> Arguments:
    """The arguments of a queue out of which nothing goes by itself."""
    # reject-publish: should an operator's policy bound it, the publisher hears of it.
    overflow: Arguments = {"x-queue-type": kind, "x-overflow": "reject-publish"}
    return {**overflow, "x-delivery-limit": LOOKS} if kind == "quorum" else overflow


def _work(service: ServiceLayout, kind: QueueType) -> Arguments:
    return {
        **_consumed(service, kind, drop=service.overflow == "drop"),
        "x-max-length": service.limits.max_length,
        "x-max-length-bytes": service.limits.max_bytes,
        "x-message-ttl": service.limits.ttl_ms,
    }


def _lane_arguments(service: ServiceLayout, kind: QueueType) -> Arguments:
    return {
        **_consumed(service, kind),
        "x-max-length": service.limits.lane_max_length,
        "x-max-length-bytes": service.limits.lane_max_bytes,
        "x-single-active-consumer": True,  # one owner keeps a pair in order, through a failover
    }


def _consumed(service: ServiceLayout, kind: QueueType, *, drop: bool = False) -> Arguments:
    home = names.failed(service.name)
    limit: Arguments = {"x-delivery-limit": service.limits.delivery_limit}
    return {**_dead_letter(kind, names.DLX, home, drop=drop), **(limit if kind == "quorum" else {})}


def _bucket(service: ServiceLayout, kind: QueueType) -> Arguments:
    # The way home is to the work queue alone: through pf.events other services had it twice.
    return _dead_letter(kind, names.REDELIVER, names.work_queue(service.name))


def _dead_letter(kind: QueueType, exchange: str, key: str, *, drop: bool = False) -> Arguments:
    common: Arguments = {
        "x-queue-type": kind,
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-routing-key": key,
        # Full: the publisher gets a nack, nothing is lost. With drop the oldest is failed instead.
        "x-overflow": "drop-head" if drop else "reject-publish",
    }
    # The default strategy lost 682 of 3,000 in a broker kill, at-least-once none; it needs
    # reject-publish, and only quorum queues have it.
    safe = kind == "quorum" and not drop
    return {**common, "x-dead-letter-strategy": "at-least-once"} if safe else common
