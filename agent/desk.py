"""What the agent's handlers work with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import structlog

from agent.alerting.handlers import Alerting
from agent.alerting.settings import load_alerts
from agent.alerting.sinks import open_sinks
from agent.guard import Guard
from agent.modes import Limits
from agent.paper import PaperVenue
from agent.settings import AgentSettings
from agent.strategy import Strategy, strategy
from agent.venue import Venue, VenueApi
from agent.watch import Place, Watch
from agent.world.ports import World
from agent.world.settings import WorldSettings, load_world
from fleet import clock
from fleet.core.alerts import alert_event
from fleet.core.breaker import BreakerPolicy
from fleet.core.errors import PublishError
from fleet.store import paper
from fleet.store.api import Store
from workers.context import Context, Publish, Startup

SERVICE: Final = "trading.agent"
PROBE_CALLS: Final = 3
"""A probe may take this many calls' time before another is let through."""

log = structlog.get_logger("fleet.agent")


@dataclass(frozen=True, slots=True)
class Desk:
    """What handlers find in `Context.app`.

    `agent` is its name at the platform, `book` its name in the book of positions and in the keys
    of orders: paper trading has one of its own.
    """

    agent: str
    book: str
    store: Store
    publish: Publish
    venue: VenueApi
    strategy: Strategy
    candles: Strategy | None
    settings: AgentSettings
    world: World
    alerting: Alerting
    guard: Guard
    watch: Watch

    @property
    def mode_text(self) -> str:
        """The mode as it stands in the rows of effects."""
        mode = self.watch.standing.mode
        return f"{paper.MODE}{mode}" if self.settings.paper else mode

    async def alert(self, ctx: Context, name: str, *, key: str, detail: str) -> None:
        """Raise an alert now: what a delivery that fails would emit is never published."""
        try:
            await self.publish(alert_event(self.agent, name, ctx.now_ms, key=key, detail=detail))
        except PublishError as error:
            log.warning("an alert is not published", alert=name, detail=detail, reason=str(error))


@asynccontextmanager
async def open_desk(
    settings: AgentSettings, startup: Startup, world: WorldSettings | None = None
) -> AsyncIterator[Desk]:
    """A desk with a session at the venue and a watch over the mode, both ended at the end.

    Raises SettingsError where the settings lack the agent or its key, or name no strategy.
    """
    place, store = place_of(settings), startup.store
    guard = Guard(store, place.book, _policy(settings))
    watch = Watch(place, store, guard, startup.publish)
    size, threshold = settings.window, settings.threshold
    candles = settings.candle_strategy
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(_platform(settings, place))
        told = load_alerts()
        alerting = Alerting(told, await stack.enter_async_context(open_sinks(told)))
        await watch.look(clock.now_ms())
        watching = asyncio.create_task(watch.run())
        stack.push_async_callback(_end, watching)
        yield Desk(
            agent=place.agent,
            book=place.book,
            store=store,
            publish=startup.publish,
            venue=PaperVenue(store, place.book, place.service) if settings.paper else platform,
            strategy=strategy(settings.strategy, size, threshold),
            candles=strategy(candles, size, threshold) if candles else None,
            settings=settings,
            world=World(world or load_world(), platform, is_paper=settings.paper),
            alerting=alerting,
            guard=guard,
            watch=watch,
        )


def place_of(settings: AgentSettings) -> Place:
    """Whose state it is. Raises SettingsError where the settings lack the agent."""
    agent = settings.agent()
    return Place(
        agent=agent,
        book=agent + paper.BOOK if settings.paper else agent,
        service=SERVICE,
        capital=settings.capital(),
        limits=Limits(
            min_balance=settings.min_balance_usdc,
            max_drawdown=settings.max_drawdown,
            max_feed_age_s=settings.max_feed_age_s,
            steady_s=settings.mode_steady_s,
        ),
        is_paper=settings.paper,
    )


def _platform(settings: AgentSettings, place: Place) -> Venue:
    return Venue(
        settings.api_url,
        place.agent,
        settings.key(),
        timeout_s=settings.api_timeout_s,
        endpoint=settings.order_endpoint,
        tls=settings.tls() if settings.api_url.lower().startswith("https:") else None,
    )


def _policy(settings: AgentSettings) -> BreakerPolicy:
    return BreakerPolicy(
        failures=settings.breaker_failures,
        open_ms=int(settings.breaker_open_s * 1000),
        probe_ms=int(PROBE_CALLS * settings.api_timeout_s * 1000),
    )


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
