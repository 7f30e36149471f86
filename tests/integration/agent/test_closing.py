"""An operator closes one position, and says what another gained: `fleet effects`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from decimal import Decimal
from typing import Any

from agent.keys import trade_key
from fleet import clock
from fleet.store import equity
from sandbox.venue import OpenOrder

AGENT, BTC, MINUTE = "pf_agent_sandbox", "BTC/USDT", 60_000


async def effects(agents: Any, *words: str, code: int = 0) -> str:
    """Run the command as an operator does; what it says."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "fleet", "effects", *words],
        env={
            **os.environ,
            "AMQP_URL": agents._url,
            "STORE_URL": agents.store_url,
            "PF_AGENT_ID": AGENT,
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return str(done.stdout or done.stderr)


async def test_an_operator_closes_one_position(agents: Any) -> None:
    """By its order's key, once; then one the book never had; and says what a third gained."""
    await agents.start(workers=1)
    start = clock.now_ms() // MINUTE * MINUTE
    for number, price in enumerate([1000] * 19 + [1010]):
        await agents.tick(BTC, price, start + 100 * number)
    await agents.settled(orders=1)
    key = trade_key(AGENT, BTC, "long", start)
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
