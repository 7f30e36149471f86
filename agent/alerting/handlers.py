"""What becomes of an alert: written down, logged, and one delivery for each sink."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from agent.alerting.settings import AlertSettings
from agent.alerting.sinks import Sinks
from fleet.core.alerts import KINDS
from fleet.core.decision import Ack, Decision
from fleet.core.errors import NotNowError
from fleet.core.payloads import AlertRaised, Payload
from fleet.core.retry import RetryPolicy
from fleet.store import alerts
from fleet.store.api import Tx
from fleet.telemetry import metrics
from workers.context import Context
from workers.registry import Service

LEVELS: Final = ("info", "warning", "critical")
PATIENT: Final = RetryPolicy(attempts=8, base=2.0, cap=120.0)
AT_ONCE: Final = 2
"""Deliveries to one sink that a worker has under way: one that hangs must not hold up orders."""
TURN_S: Final = 0.5
"""So long the next one waits for its turn here, and then BUSY_S outside."""
BUSY_S: Final = 15.0

log = structlog.get_logger("fleet.alerts")


class Alerting:
    """The sinks of one worker, and from which severity on they are told."""

    def __init__(self, settings: AlertSettings, sinks: Sinks) -> None:
        self.sinks = sinks
        self._least = LEVELS.index(settings.severity)
        self._turns = {name: asyncio.Semaphore(AT_ONCE) for name in sinks}

    def told(self, alert: AlertRaised) -> list[str]:
        """The names of the sinks that are to be told of `alert`."""
        return sorted(self.sinks) if LEVELS.index(alert.severity) >= self._least else []

    async def send(self, name: str, alert: AlertRaised, alert_id: str) -> None:
        """Tell one sink. Raises what the sink raises, and NotNowError while it has enough to do."""
        turn = self._turns[name]
        try:
            await asyncio.wait_for(turn.acquire(), TURN_S)
        except TimeoutError:
            reason = f"{AT_ONCE} alerts are on their way to {name}"
            raise NotNowError(reason, retry_after=BUSY_S) from None
        try:
            await self.sinks[name].send(alert, alert_id)
        finally:
            turn.release()


class DeliveryRequested(Payload, frozen=True, gc=False):
    """A durable command to tell one sink of one alert."""

    sink: str
    alert_id: str
    alert: AlertRaised


def register(service: Service) -> None:
    """Add the handlers of alerts to a service whose app has `alerting`."""
    service.handler("alert.raised")(on_alert)
    service.handler("alert.delivery_requested", retry=PATIENT)(on_delivery)


def on_alert(ctx: Context, alert: AlertRaised) -> None:
    """Write it down and log it; each sink gets a delivery of its own, to fail alone."""
    event = ctx.event
    row = alerts.Alert(
        event_id=event.event_id,
        agent=event.agent_id,
        name=alert.name,
        alert_key=alert.key,
        severity=alert.severity,
        title=alert.title,
        detail=alert.detail,
        runbook=alert.runbook,
        at_ms=event.ts,
    )

    def write(tx: Tx) -> None:
        # Two workers may have it at once; who writes it is who tells.
        if alerts.add(tx, row):
            _say(alert)

    ctx.write(write)
    for sink in ctx.app.alerting.told(alert):
        wish = DeliveryRequested(sink, event.event_id, alert)
        ctx.emit("alert.delivery_requested", wish, key=sink)


def _say(alert: AlertRaised) -> None:
    say = log.info if alert.severity == "info" else log.warning
    say(alert.title, alert=alert.name, severity=alert.severity, detail=alert.detail)
    name = alert.name if alert.name in KINDS else metrics.OTHER
    metrics.ALERTS.labels(alert.severity, name).inc()


async def on_delivery(ctx: Context, wish: DeliveryRequested) -> Decision | None:
    """Tell one sink; a lost answer may tell it twice, with the same id."""
    alerting: Alerting = ctx.app.alerting
    if wish.sink not in alerting.sinks:
        return Ack(skipped=f"there is no sink {wish.sink} any more")
    await alerting.send(wish.sink, wish.alert, wish.alert_id)
    return None
