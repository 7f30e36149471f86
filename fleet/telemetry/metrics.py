"""Every metric of the project, on one page.

Units are seconds and messages. Label sets are bounded: a type that nobody declared counts as
"other", a handler is named by its function, `class` is one of the six failure classes. What is
true of the whole fleet, whoever counts it, is told by one process, the exporter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    disable_created_metrics,
)
from prometheus_client import Histogram as LockedHistogram
from prometheus_client.process_collector import ProcessCollector

from fleet.core.payloads import KNOWN
from fleet.telemetry.histogram import Histogram

OTHER: Final = "other"
HANDLING_S: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
AGE_S: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 600.0, 3_600.0)
COMMIT_S: Final = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

disable_created_metrics()  # type: ignore[no-untyped-call]  # the library lacks it here
REGISTRY: Final = CollectorRegistry()
"""What every process shows of itself."""
FLEET: Final = CollectorRegistry()
"""What only the exporter shows: it is about the whole fleet."""
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

# --- every process ---

READY: Final = Gauge(
    "fleet_ready", "1 while work is really done, 0 while /readyz says why not.", registry=REGISTRY
)
LOOP_LAG: Final = Gauge(
    "fleet_loop_lag_seconds",
    "How late the event loop was at its last look: a handler that blocks shows here.",
    registry=REGISTRY,
)
UNCONFIRMED: Final = Gauge(
    "fleet_unconfirmed", "Published messages that the broker has not answered.", registry=REGISTRY
)
STORE_COMMIT_SECONDS: Final = LockedHistogram(
    "fleet_store_commit_seconds",
    "From handing a write to the store to its commit.",
    buckets=COMMIT_S,
    registry=REGISTRY,
)
STORE_ERRORS: Final = Counter(
    "fleet_store_errors", "Calls to the store that it could not do for now.", registry=REGISTRY
)

# --- workers ---

WORKER_INFO: Final = Gauge(
    "fleet_worker_info",
    "1: this worker and its version.",
    ["service", "worker", "version"],
    registry=REGISTRY,
)
EVENTS: Final = Counter(
    "fleet_events",
    "Deliveries that were settled: done, skipped, expired, failed, retried or postponed; or"
    " returned: not settled, they come again.",
    ["type", "service", "outcome"],
    registry=REGISTRY,
)
HANDLER_SECONDS: Final = Histogram(
    "fleet_handler_seconds",
    "Time in a handler, middlewares included.",
    ["service", "handler"],
    bounds=HANDLING_S,
    registry=REGISTRY,
)
EVENT_AGE_SECONDS: Final = Histogram(
    "fleet_event_age_seconds",
    "Age of events, from their ts to their settlement.",
    ["service"],
    bounds=AGE_S,
    registry=REGISTRY,
)
RETRIES: Final = Counter(
    "fleet_retries", "Retries, by why they were needed.", ["service", "class"], registry=REGISTRY
)
FAILURES: Final = Counter(
    "fleet_failures", "Deliveries failed, by why.", ["service", "class"], registry=REGISTRY
)
EFFECTS: Final = Counter(
    "fleet_effects",
    "Attempts at an effect, by the event's type and what is known of the effect since.",
    ["kind", "state"],
    registry=REGISTRY,
)
IN_FLIGHT: Final = Gauge(
    "fleet_in_flight", "Deliveries in a worker's hands.", ["service"], registry=REGISTRY
)
CONSUMERS: Final = Gauge(
    "fleet_consumers", "Consumers that the broker has confirmed.", ["service"], registry=REGISTRY
)
LANES_OWNED: Final = Gauge(
    "fleet_lanes_owned", "Lanes that this worker took last.", ["service"], registry=REGISTRY
)
HANDLER_HALTED: Final = Gauge(
    "fleet_handler_halted",
    "1 while a handler is halted until an operator releases it.",
    ["service", "handler"],
    registry=REGISTRY,
)

# --- the agent ---

MODE: Final = Gauge(
    "fleet_mode",
    "1 for the agent's mode, 0 for the others: full, read_only, observation, shutdown.",
    ["mode"],
    registry=REGISTRY,
)
BREAKER_STATE: Final = Gauge(
    "fleet_breaker_state",
    "The venue's breaker: 0 closed, 1 half open, 2 open.",
    ["venue"],
    registry=REGISTRY,
)

ALERTS: Final = Counter(
    "fleet_alerts",
    "Alerts that were raised, each once an hour; `name` is other for those of your own handlers.",
    ["severity", "name"],
    registry=REGISTRY,
)

# --- the bridge ---

BRIDGE_LEADER: Final = Gauge(
    "fleet_bridge_leader",
    "1 while this bridge leads, 0 while it stands by.",
    ["source"],
    registry=REGISTRY,
)
BRIDGE_CONNECTED: Final = Gauge(
    "fleet_bridge_connected", "1 while the source is connected.", ["source"], registry=REGISTRY
)
BRIDGE_EVENTS: Final = Counter(
    "fleet_bridge_events",
    "Frames behind the saved cursor: published, shed or quarantined.",
    ["source", "outcome"],
    registry=REGISTRY,
)
BRIDGE_MISSED: Final = Counter(
    "fleet_bridge_missed_ranges",
    "Ranges of events that the source could not give again.",
    ["source"],
    registry=REGISTRY,
)
BRIDGE_REFUSED: Final = Counter(
    "fleet_bridge_refused",
    "Publishes that were not confirmed: nacked (a queue is full), returned (no queue), unknown.",
    ["source", "reason"],
    registry=REGISTRY,
)
CURSOR_LAG: Final = Gauge(
    "fleet_cursor_lag_seconds",
    "Age of the oldest frame that the saved cursor has not passed; 0 where it passed all.",
    ["source"],
    registry=REGISTRY,
)

# --- the fleet as a whole: the exporter ---

EXPORTER_UP: Final = Gauge(
    "fleet_exporter_up",
    "1 while the exporter can ask it: broker, store, audit.",
    ["part"],
    registry=FLEET,
)
QUEUE_DEPTH: Final = Gauge(
    "fleet_queue_depth",
    "Messages that wait for a worker: in work queues and in all lanes of a service.",
    ["service", "queue"],
    registry=FLEET,
)
QUEUE_CONSUMERS: Final = Gauge(
    "fleet_queue_consumers", "Consumers of a service's work queue.", ["service"], registry=FLEET
)
LANES_UNOWNED: Final = Gauge(
    "fleet_lanes_unowned", "Lanes that nobody consumes.", ["service"], registry=FLEET
)
RETRY_DEPTH: Final = Gauge(
    "fleet_retry_depth",
    "Messages that wait in a retry bucket.",
    ["service", "bucket"],
    registry=FLEET,
)
FAILED_DEPTH: Final = Gauge(
    "fleet_failed_depth", "Messages that wait for a person.", ["service"], registry=FLEET
)
FAILED_OLDEST: Final = Gauge(
    "fleet_failed_oldest_seconds",
    "How long the oldest of them waits.",
    ["service"],
    registry=FLEET,
)
FAILED_ALARM: Final = Gauge(
    "fleet_failed_alarm",
    "1 while more of them wait than a person should leave waiting: ten.",
    ["service"],
    registry=FLEET,
)
PARKED_DEPTH: Final = Gauge(
    "fleet_parked_depth",
    "Messages that nobody wanted (unrouted), frames that could not be read (quarantine).",
    ["queue"],
    registry=FLEET,
)
EFFECTS_STORED: Final = Gauge(
    "fleet_effects_stored",
    "Effects in the store, by kind and state.",
    ["kind", "state"],
    registry=FLEET,
)
POSITIONS: Final = Gauge(
    "fleet_positions", "Positions in the agent's book, by state.", ["state"], registry=FLEET
)
BRIDGE_LED: Final = Gauge(
    "fleet_bridge_led",
    "1 while some bridge has the lease, 0 while none has.",
    ["bridge"],
    registry=FLEET,
)
UNACCOUNTED: Final = Gauge(
    "fleet_unaccounted",
    "Events that the last audit could not account for; NaN before the first has ended.",
    registry=FLEET,
)
DOUBLED: Final = Gauge(
    "fleet_doubled",
    "Effects that the last audit found twice; NaN before the first has ended.",
    registry=FLEET,
)
for _audited in (UNACCOUNTED, DOUBLED):
    _audited.set(math.nan)  # nothing is proven yet, and 0 would say that it is
AUDITED_AT: Final = Gauge(
    "fleet_audit_timestamp_seconds",
    "When the last audit ended, since 1970; 0 before the first, NaN where there are none.",
    registry=FLEET,
)


def bounded(declared: Iterable[str]) -> frozenset[str]:
    """The event types that are told apart: those of handlers, and those that everybody knows."""
    return frozenset(KNOWN) | {each for each in declared if "*" not in each and "#" not in each}
