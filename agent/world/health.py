"""How the agent's world is: written down each time the clock asks, told where it is bad."""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec

from agent import records
from agent.desk import SERVICE, Desk
from fleet.core.errors import ApiError, NetworkError, NotNowError, RefusedError
from fleet.store import lanes
from workers.context import Context

NOWHERE: Final = -1.0
_TROUBLE: Final = (ApiError, NetworkError, NotNowError, RefusedError)


class Report(msgspec.Struct, frozen=True):
    """What was found at `at_ms`: seconds since the last price, the venue's answer time, money.

    `venue_s` is -1 where the venue did not answer, `price_age_s` -1 where no price ever came.
    """

    at_ms: int
    price_age_s: float
    venue_s: float
    balance_usdc: str = ""
    trouble: str = ""


async def on_health(ctx: Context, _: dict[str, Any]) -> None:
    """Ask the venue, look how old the prices are, and write down how things are."""
    desk: Desk = ctx.app
    began, trouble = time.monotonic(), ""
    try:
        await desk.venue.positions()
    except _TROUBLE as error:
        trouble = str(error)
        ctx.alert("venue_away", detail=trouble)
    passed = time.monotonic() - began
    touched_ms = await desk.store.read(lambda tx: lanes.touched_ms(tx, SERVICE))
    balance = await desk.store.read(lambda tx: records.balance(tx, desk.agent))
    age_s = (ctx.now_ms - touched_ms) / 1000 if touched_ms else NOWHERE
    if age_s > desk.settings.max_feed_age_s:
        ctx.alert("prices_stale", detail=f"the last price came {age_s:.0f} s ago")
    report = Report(
        at_ms=ctx.now_ms,
        price_age_s=age_s,
        venue_s=NOWHERE if trouble else round(passed, 3),
        balance_usdc="" if balance is None else str(balance),
        trouble=trouble,
    )
    records.keep(ctx, f"health/{desk.book}", report)
