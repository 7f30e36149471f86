"""The service `trading.agent`: which event of the platform goes to which handler."""

from __future__ import annotations

from functools import partial
from typing import Final

import msgspec

from agent.alerting import handlers as alert_handlers
from agent.candles import on_candle
from agent.closing import on_close
from agent.desk import SERVICE, Desk, open_desk
from agent.executor import on_order, on_unknown
from agent.orders import ATTEMPTS
from agent.risk import LONGEST_PAIR
from agent.settings import AgentSettings, load_settings
from agent.signals import RECORD, on_signal, order
from agent.strategy import Window
from agent.world import register as world_handlers
from agent.world.settings import WorldSettings, load_world
from fleet.core.decision import Ack, Decision
from fleet.core.errors import DataError
from fleet.core.payloads import CloseRequested, MarketTick, OrderRequested
from fleet.core.retry import RetryPolicy
from topology.model import Lanes
from workers.context import Context
from workers.registry import Service

NAME: Final = SERVICE
ORDER_DEADLINE_CALLS: Final = 4
"""The most calls of the venue in one attempt: positions, close, positions, open."""
CLOSE_DEADLINE_CALLS: Final = 2
CLOSE_ATTEMPTS: Final = 100
"""It is never too late to close a position."""

_TWIN: Final = Ack(skipped="a tick of this moment was counted")
_USELESS: Final = Ack(skipped="no price, or older than one before")


def service(settings: AgentSettings | None = None, world: WorldSettings | None = None) -> Service:
    """The trading agent as a service; without settings, those of the environment.

    Raises SettingsError where one is wrong. Agent and key are asked for when a worker starts.
    """
    settings = settings or load_settings()
    world = world or load_world()
    made = Service(
        NAME,
        lanes=Lanes(partitions=settings.partitions),
        lifespan=partial(open_desk, settings, world=world),
    )
    made.handler("market.tick", state=Window, max_age=settings.tick_max_age_s)(on_tick)
    # No max_age: what became of an order that was sent is found out however old it is. Whether one
    # that was not may still be sent the executor decides; a replay of an old one is not for that.
    made.handler(
        "order.requested",
        effect="once",
        key=_key,
        unknown=on_unknown,
        # One more than may send it: the last one only asks.
        retry=RetryPolicy(attempts=ATTEMPTS + 1, base=2.0, cap=30.0),
        deadline=ORDER_DEADLINE_CALLS * settings.api_timeout_s + 5.0,
        stale_after=settings.order_max_age_s,
    )(on_order)
    made.handler(
        "order.close_requested",
        effect="once",
        key=_close_key,
        unknown=on_close,
        retry=RetryPolicy(attempts=CLOSE_ATTEMPTS, base=2.0, cap=30.0),
        deadline=CLOSE_DEADLINE_CALLS * settings.api_timeout_s + 5.0,
    )(on_close)
    made.handler(RECORD)(on_signal)
    made.handler("market.candle")(on_candle)
    world_handlers.register(made, settings.api_timeout_s)
    alert_handlers.register(made)
    return made


def on_tick(ctx: Context, tick: MarketTick) -> Decision | None:
    """Move the pair's window on; a signal becomes an order, to be carried out elsewhere."""
    if not 0 < len(tick.pair) <= LONGEST_PAIR:
        raise DataError(f"a pair of {len(tick.pair)} characters is no market")
    desk: Desk = ctx.app
    if _is_twin(ctx.state, tick):
        return _TWIN
    window, signal = desk.strategy.step(ctx.state, tick, ctx.event.ts)
    if window is ctx.state or window is None:
        return _USELESS
    ctx.keep(msgspec.structs.replace(window, synthetic=True) if tick.synthetic else window)
    if signal is not None:
        order(ctx, tick.pair, signal, desk.strategy, window)
    return None


def _is_twin(window: Window | None, tick: MarketTick) -> bool:
    """Whether it tells of a moment that a synthetic tick, or the stream, has told of already."""
    if window is None or not (tick.synthetic or window.synthetic):
        return False
    return tick.timestamp_ms == window.last_ms


def _key(wish: OrderRequested) -> str:
    return wish.key


def _close_key(wish: CloseRequested) -> str:
    return wish.key
