"""Asks broker, store and audit every so often, and keeps the gauges of the whole fleet."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import structlog
from prometheus_client import Gauge

from fleet import clock
from fleet.amqp.looks import Depth, open_looks
from fleet.audit.auditor import Auditor, Subject
from fleet.backlog import Alarm, read_backlogs
from fleet.core.errors import FleetError
from fleet.exporter.settings import ExporterSettings
from fleet.store import audit, leases, positions
from fleet.store.api import Lease, Store, Tx
from fleet.telemetry import metrics
from fleet.telemetry.health import Health
from topology import names
from topology.model import ServiceLayout

PATIENCE_S: Final = 6.0
"""How long an audit waits for what the fleet has in its hands."""

log = structlog.get_logger("fleet.exporter")


class Exporter:
    """Keeps the gauges of `subjects` at the broker of `amqp_url`, over an open store.

    What cannot be asked is not shown: a figure of long ago would look like one of now. Only
    `fleet_exporter_up` says so then, and /readyz. What the last audit found stays, for one that
    fails does not find a lost event again; `fleet_audit_timestamp_seconds` says how old that is.
    """

    def __init__(
        self,
        amqp_url: str,
        store: Store,
        subjects: Sequence[Subject],
        settings: ExporterSettings,
        *,
        unacked: Callable[[Sequence[str]], int | None] = lambda _: None,
    ) -> None:
        self.health = Health("exporter")
        self._amqp_url = amqp_url
        self._store = store
        self._subjects = subjects
        self._settings = settings
        self._unacked = unacked
        self._alarm = Alarm()
        self._types = metrics.bounded(each for one in subjects for each in one.layout.fed)
        self._trouble: dict[str, str] = {}
        for part in ("broker", "store", "audit"):
            self.health.check(part, partial(self._said, part))

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again("broker", self.ask_broker, self._settings.every_s))
            group.create_task(self._again("store", self.ask_store, self._settings.every_s))
            if self._settings.audit_every_s:
                group.create_task(self._again("audit", self.audit, self._settings.audit_every_s))
            else:
                metrics.AUDITED_AT.set(math.nan)

    async def ask_broker(self) -> None:
        """Depths, consumers, and what waits for a person; looks at no message."""
        layouts = [each.layout for each in self._subjects]
        queues = [queue for each in self._subjects for queue in each.queues]
        async with open_looks(self._amqp_url) as looks:
            depths = await looks.depths([*queues, *names.PARKED], veiled=names.PARKED)
        for subject in self._subjects:
            _show_queues(subject.layout, depths)
        for queue in names.PARKED:
            if queue in depths:
                name = queue.removeprefix("pf.")
                metrics.PARKED_DEPTH.labels(name).set(depths[queue].ready)
        services = [layout.name for layout in layouts]
        found = await read_backlogs(self._amqp_url, self._store, services)
        self._alarm.tell(found, clock.now_ms())

    async def ask_store(self) -> None:
        """Effects and positions by state, and whether some bridge leads."""
        effects, book, bridges = await self._store.read(_questions)
        metrics.EFFECTS_STORED.clear()
        for kind, states in effects.items():
            shown = kind if kind in self._types else metrics.OTHER
            for state, count in states.items():
                metrics.EFFECTS_STORED.labels(shown, state).inc(count)
        metrics.POSITIONS.clear()
        for state, count in book.items():
            metrics.POSITIONS.labels(state).set(count)
        now_ms = clock.now_ms()
        for lease in bridges:
            is_led = bool(lease.holder) and lease.expires_at_ms > now_ms
            metrics.BRIDGE_LED.labels(lease.name.removeprefix(leases.BRIDGES)).set(is_led)

    async def audit(self) -> None:
        """Reckon every event, as `fleet audit` does."""
        async with Auditor(
            self._amqp_url, self._store, self._subjects, unacked=self._unacked
        ) as auditor:
            findings = await auditor.patient(PATIENCE_S)
        metrics.UNACCOUNTED.set(len(findings.reckoning.unaccounted))
        metrics.DOUBLED.set(findings.doubled)
        metrics.AUDITED_AT.set(time.time())

    async def _again(self, part: str, ask: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            try:
                await ask()
            except FleetError as error:
                self._is_away(part, str(error))
            except Exception as error:
                log.exception("asking failed", part=part)  # ours to mend; the rest goes on
                self._is_away(part, type(error).__name__)
            else:
                self._trouble[part] = ""
            metrics.EXPORTER_UP.labels(part).set(not self._trouble[part])
            await asyncio.sleep(every_s)

    def _is_away(self, part: str, reason: str) -> None:
        if not self._trouble.get(part):
            log.warning("cannot be asked", part=part, reason=reason)
        self._trouble[part] = reason
        for gauge in _SHOWN[part]:
            gauge.clear()

    def _said(self, part: str) -> str:
        return self._trouble.get(part, "")


_SHOWN: Final[dict[str, tuple[Gauge, ...]]] = {
    "broker": (
        metrics.QUEUE_DEPTH,
        metrics.QUEUE_CONSUMERS,
        metrics.LANES_UNOWNED,
        metrics.RETRY_DEPTH,
        metrics.PARKED_DEPTH,
        metrics.FAILED_DEPTH,
        metrics.FAILED_OLDEST,
        metrics.FAILED_ALARM,
    ),
    "store": (metrics.EFFECTS_STORED, metrics.POSITIONS, metrics.BRIDGE_LED),
    "audit": (),
}


def _show_queues(layout: ServiceLayout, depths: dict[str, Depth]) -> None:
    work = names.work_queue(layout.name)
    if work in depths:
        metrics.QUEUE_DEPTH.labels(layout.name, "work").set(depths[work].ready)
        metrics.QUEUE_CONSUMERS.labels(layout.name).set(depths[work].consumers)
    for number in range(layout.buckets):
        ready = _ready(depths, names.retry(layout.name, number))
        metrics.RETRY_DEPTH.labels(layout.name, f"{names.bucket_ms(number) / 1000:g}").set(ready)
    if layout.lanes is None:
        return
    there = [depths[lane] for lane in layout.lane_queues if lane in depths]
    metrics.QUEUE_DEPTH.labels(layout.name, "lanes").set(sum(each.ready for each in there))
    unowned = sum(1 for each in there if not each.consumers)
    metrics.LANES_UNOWNED.labels(layout.name).set(unowned)


def _questions(tx: Tx) -> tuple[dict[str, dict[str, int]], dict[str, int], list[Lease]]:
    return audit.effects(tx), positions.by_state(tx), leases.beginning(tx, leases.BRIDGES)


def _ready(depths: dict[str, Depth], queue: str) -> int:
    return depths[queue].ready if queue in depths else 0
