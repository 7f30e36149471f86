"""`fleet explain`: from a tick to a position, by event id and by effect key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from agent.keys import trade_key
from fleet import clock

AGENT, BTC, MINUTE = "pf_agent_sandbox", "BTC/USDT", 60_000


def explain(agents: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as an operator does."""
    return subprocess.run(
        [sys.executable, "-m", "fleet", "explain", *arguments],
        env={
            **os.environ,
            "AMQP_URL": agents._url,
            "STORE_URL": agents.store_url,
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
async def traded(agents: Any) -> tuple[Any, str, str]:
    """A fleet that traded once; the id of the tick that signalled, and the key of its order."""
    await agents.start(workers=1)
    start = clock.now_ms() // MINUTE * MINUTE
    for number, price in enumerate([1000] * 19 + [1010]):
        await agents.tick(BTC, price, start + 100 * number)
    await agents.settled(orders=1)

    async def recorded() -> bool:
        return any(handler == "on_signal" for _, handler, _ in await agents.journal())

    await agents.until(recorded)
    return agents, agents.published[-1].event_id, trade_key(AGENT, BTC, "long", start)


async def test_the_story_of_a_tick_and_of_its_key(traded: tuple[Any, str, str]) -> None:
    """The tick, what it led to, the strategy's reason, and the position: whichever one asks for."""
    agents, tick, key = traded
    by_id = json.loads(explain(agents, tick, "--json").stdout)
    kinds = [told["event"]["type"] for told in by_id["events"]]
    assert kinds[0] == "market.tick"
    assert sorted(kinds[1:]) == ["order.requested", "signal.recorded"]
    assert {told["parent"] for told in by_id["events"][1:]} == {tick}
    assert {told["journal"][0]["outcome"] for told in by_id["events"]} == {"done"}
    (effect,) = by_id["effects"]
    assert (effect["key"], effect["state"], effect["attempts"]) == (key, "done", 1)
    (decision,) = by_id["decisions"]
    inputs = json.loads(decision["inputs"])
    assert (inputs["first"], inputs["price"], inputs["threshold"]) == ("1000", "1010", "0.003")
    assert (decision["mode"], decision["strategy"]) == ("full", "momentum")
    assert decision["outcome"].startswith("opened as pos_")
    by_key = json.loads(explain(agents, key, "--json").stdout)
    told = {one["event"]["type"] for one in by_key["events"]}
    assert told == {"order.requested", "signal.recorded"}
    assert by_key["effects"] == by_id["effects"]


async def test_a_person_reads_it_and_the_store_alone_can_tell(traded: tuple[Any, str, str]) -> None:
    """Lines in the order in which it happened; without the log, what the store knows."""
    agents, tick, key = traded
    text = explain(agents, tick).stdout
    words = [
        "market.tick",
        "order.requested",
        "became    opened as",
        f"effect {key}",
        "position_id",
    ]
    places = [text.find(word) for word in words]
    assert -1 not in places
    assert places == sorted(places)
    alone = json.loads(explain(agents, key, "--no-log", "--json").stdout)
    assert [one["event"] for one in alone["events"]] == [None, None]
    assert {one["journal"][0]["handler"] for one in alone["events"]} == {"on_order", "on_signal"}
    unknown = explain(agents, "no-such-key", "--no-log")
    assert unknown.returncode == 2
    assert "Nothing is known of no-such-key" in unknown.stderr
