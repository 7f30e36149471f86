"""What the agent's handlers work with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from agent.momentum import Momentum, Strategy
from agent.settings import AgentSettings
from agent.venue import Venue
from fleet.store.api import Store
from workers.context import Startup


@dataclass(frozen=True, slots=True)
class Desk:
    """What handlers find in `Context.app`."""

    agent: str
    store: Store
    venue: Venue
    strategy: Strategy
    settings: AgentSettings


@asynccontextmanager
async def open_desk(settings: AgentSettings, startup: Startup) -> AsyncIterator[Desk]:
    """A desk with a session at the venue, closed at the end.

    Raises SettingsError where the settings lack the agent or its key.
    """
    agent, key = settings.agent(), settings.key()
    strategy = Momentum(settings.window, settings.threshold)
    async with Venue(settings.api_url, agent, key, timeout_s=settings.api_timeout_s) as venue:
        yield Desk(agent, startup.store, venue, strategy, settings)
