"""Modes and takeovers with real workers on a real broker."""

from __future__ import annotations

from typing import Any

from agent import state
from fleet import clock
from fleet.store import effects

AGENT, MINUTE = "pf_agent_sandbox", 60_000


def this_minute() -> int:
    """The start of the running minute."""
    return clock.now_ms() // MINUTE * MINUTE


async def rise(agents: Any, pair: str, prices: int = 20, start: int = 0) -> None:
    """Quiet prices, and one that is a signal; or only the first of them."""
    for number in range(start, prices):
        await agents.tick(pair, 1010 if number == 19 else 1000, this_minute() + number)


async def say(agents: Any, mode: Any) -> None:
    """An operator sets the mode."""
    now_ms = clock.now_ms()
    said = {"operator": "ann", "note": "a test", "now_ms": now_ms}
    await agents.store.run(lambda tx: state.order_mode(tx, AGENT, mode, **said))


async def outcomes(agents: Any, handler: str) -> list[str]:
    """What became of the events of one handler."""
    return [outcome for _, name, outcome in await agents.journal() if name == handler]


async def test_a_shutdown_closes_everything_once_over_three_workers(
    agents: Any, pairs: tuple[str, ...]
) -> None:
    """An operator's word: two positions, one closing each, then orders come to nothing."""
    await agents.start()
    for pair in pairs[:2]:
        await rise(agents, pair)
    await agents.settled(orders=2)
    assert len(agents.venue()) == 2
    await say(agents, "shutdown")

    async def both_closed() -> bool:
        return await outcomes(agents, "on_close") == ["done", "done"]

    await agents.until(both_closed)
    await agents.until(lambda: agents.modes() == {"shutdown"})
    assert agents.venue() == await agents.book() == {}
    done = agents.sandbox.summary()
    assert (done["opened"], done["closed"], done["duplicates_answered"]) == (2, 2, 0)
    await rise(agents, pairs[2])
    await agents.settled(orders=3)
    assert sorted(await outcomes(agents, "on_order")) == ["done", "done", "skipped"]
    assert agents.venue() == {}
    rows = await agents.store.read(lambda tx: tx.query("SELECT effect_key FROM effects"))
    kept = await agents.store.read(lambda tx: effects.find(tx, [key for (key,) in rows]))
    assert {one.mode for one in kept.values() if one.kind == "order.requested"} == {"full"}
    assert all(one.mode for one in kept.values() if one.kind == "order.close_requested")


async def test_a_worker_that_takes_over_knows_the_window_before_it_trades(
    agents: Any, pairs: tuple[str, ...]
) -> None:
    """Nineteen prices by one worker, the twentieth by its successor: that is the signal."""
    await agents.start(workers=1)
    await rise(agents, pairs[0], prices=19)
    await agents.settled(orders=0)
    await agents.replace_worker("heir")
    await rise(agents, pairs[0], start=19)
    found = await agents.settled(orders=1)
    assert found["on_order"] == ["done"]
    assert agents.venue() == {pairs[0]: "long"}
