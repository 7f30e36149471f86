"""A service that only tells people, for a fleet whose handlers are not the trading agent's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from agent.alerting.handlers import Alerting, register
from agent.alerting.settings import load_alerts
from agent.alerting.sinks import open_sinks
from workers.context import Startup
from workers.registry import Service


@dataclass(frozen=True, slots=True)
class Board:
    """What the handlers of alerts find in their context's app."""

    alerting: Alerting


@asynccontextmanager
async def open_board(_startup: Startup) -> AsyncIterator[Board]:
    """A board with the sinks that are set. Raises SettingsError for a wrong one."""
    settings = load_alerts()
    async with open_sinks(settings) as sinks:
        yield Board(Alerting(settings, sinks))


service = Service("alerts", lifespan=open_board)
register(service)
