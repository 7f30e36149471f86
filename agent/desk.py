"""What the agent's handlers work with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from agent.alerting.handlers import Alerting
from agent.alerting.settings import load_alerts
from agent.alerting.sinks import open_sinks
from agent.momentum import Momentum, Strategy
from agent.settings import AgentSettings
from agent.venue import Venue
from agent.world.ports import World
from agent.world.settings import WorldSettings, load_world
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
    world: World
    alerting: Alerting


@asynccontextmanager
async def open_desk(
    settings: AgentSettings, startup: Startup, world: WorldSettings | None = None
) -> AsyncIterator[Desk]:
    """A desk with a session at the venue, closed at the end.

    Raises SettingsError where the settings lack the agent or its key.
    """
    agent, key = settings.agent(), settings.key()
    strategy = Momentum(settings.window, settings.threshold)
    async with AsyncExitStack() as stack:
        venue = await stack.enter_async_context(
            Venue(settings.api_url, agent, key, timeout_s=settings.api_timeout_s)
        )
        told = load_alerts()
        alerting = Alerting(told, await stack.enter_async_context(open_sinks(told)))
        beside = World(world or load_world(), venue)
        yield Desk(agent, startup.store, venue, strategy, settings, beside, alerting)
