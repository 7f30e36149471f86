"""An operator closes one position, and says what another gained: `fleet effects`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

from agent import state
from agent.keys import trade_key
from fleet import clock
from fleet.core.errors import RefusedError
from fleet.store import equity, positions
from sandbox.venue import OpenOrder

AGENT, BTC, MINUTE = "pf_agent_sandbox", "BTC/USDT", 60_000


async def effects(agents: Any, *words: str, code: int = 0) -> str:
    """Run `fleet effects` as an operator does; what it says."""
    return await fleet(agents, "effects", *words, code=code)


async def fleet(agents: Any, *words: str, code: int = 0) -> str:
    """Run a command as an operator does; what it says."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "fleet", *words],
        env={
            **os.environ,
            "AMQP_URL": agents._url,
            "STORE_URL": agents.store_url,
            "PF_AGENT_ID": AGENT,
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return str(done.stdout or done.stderr)


async def trade(agents: Any) -> str:
    """A rise, and the long that comes of it; its key."""
    start = clock.now_ms() // MINUTE * MINUTE
    for number, price in enumerate([1000] * 19 + [1010]):
        await agents.tick(BTC, price, start + 100 * number)
    await agents.settled(orders=1)
    return trade_key(AGENT, BTC, "long", start)


async def test_a_closing_that_the_venue_refuses_is_told_and_parked_and_a_replay_closes(
    agents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """403 in a shutdown: an alert, a message in the failed queue, and the position once mended."""
    await agents.start(workers=1)
    await trade(agents)
    (worker,) = agents._workers

    async def refuse(*_: Any) -> Any:
        raise RefusedError("/api/trade/close answered 403: the market is halted")

    async def is_told() -> bool:
        sql = "SELECT count(*) FROM alerts WHERE name = 'close_refused'"
        return bool((await agents.store.read(lambda tx: tx.query(sql)))[0][0])

    async def is_parked() -> bool:
        return ("on_close", "failed") in {row[1:] for row in await agents.journal()}

    with monkeypatch.context() as patch:
        patch.setattr(worker._flow.pool.app.venue, "close", refuse)
        said = {"operator": "ann", "note": "a test", "now_ms": clock.now_ms()}
        await agents.store.run(lambda tx: state.order_mode(tx, AGENT, "shutdown", **said))
        await agents.until(is_parked)
        await agents.until(is_told)
    assert agents.venue() == {BTC: "long"}
    (group,) = json.loads(await fleet(agents, "failed", "list", "--json"))["groups"]
    assert (group["count"], group["handler"]) == (1, "on_close")
    assert "the market is halted" in group["error"]
    await fleet(agents, "failed", "run", "--type", "order.close_requested", "--yes")

    async def is_closed() -> bool:
        return not await agents.store.read(lambda tx: positions.open_positions(tx, AGENT))

    await agents.until(is_closed)
    assert agents.venue() == {}
    assert agents.sandbox.summary()["closed"] == 1


async def test_an_operator_closes_one_position(agents: Any) -> None:
    """By its order's key, once; then one the book never had; and says what a third gained."""
    await agents.start(workers=1)
    key = await trade(agents)
    (listed,) = json.loads(await effects(agents, "list", "--json"))
    assert (listed["key"], listed["mode"]) == (key, "full")
    assert "full" in await effects(agents, "list")
    assert "full" in await effects(agents, "show", key)

    why = ("--note", "too hot", "--yes")
    assert "no position under nope" in await effects(agents, "close", "nope", *why, code=2)
    asked = json.loads(await effects(agents, "close", key, *why, "--json"))

    async def is_done(effect: str) -> bool:
        rows = await agents.store.read(
            lambda tx: tx.query("SELECT state FROM effects WHERE effect_key = ?", (effect,))
        )
        return rows == [("done",)]

    await agents.until(lambda: is_done(asked["key"]))
    assert agents.venue() == await agents.book() == {}
    assert "is over" in await effects(agents, "close", key, *why, code=2)
    said = json.loads(await effects(agents, "show", key, "--json"))["done"]
    assert [(one["action"], one["note"]) for one in said] == [("close", "too hot")]

    (worker,) = agents._workers
    stranger = await _open(worker._flow.pool.app, agents, "ETH/USDT")
    assert agents.venue() == {"ETH/USDT": "long"}
    words = ("close", stranger, "--unbooked", *why, "--json")
    asked = json.loads(await effects(agents, *words))
    await agents.until(lambda: is_done(asked["key"]))
    assert agents.venue() == {}

    await agents.store.run(lambda tx: tx.execute("UPDATE positions SET pnl = NULL"))
    how = ("settle", key, "--gained", "-3.20", "--note", "account history")
    assert "-3.20" in await effects(agents, *how)
    assert (await agents.store.read(lambda tx: equity.get(tx, AGENT))).realised == Decimal("-3.20")
    assert "nothing was changed" in await effects(agents, *how, code=2)
    assert "no amount" in await effects(agents, *how[:3], "NaN", *how[4:], code=2)


async def _open(desk: Any, agents: Any, pair: str) -> str:
    """A position that somebody else opens at the venue; its id there."""
    wish = OpenOrder(pair, "long", Decimal(10), "somebody", Decimal(1))
    agents.sandbox._venue.open(wish, clock.now_ms())
    (one,) = await desk.venue.positions()
    return str(one.position_id)
