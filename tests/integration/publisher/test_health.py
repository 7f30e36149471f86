"""/readyz of a bridge says whether events get through, and /metrics how many did."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from prometheus_client import generate_latest

from fleet.telemetry import metrics

SOURCE = "stream:pf_agent_sandbox"
PUBLISHED = f'fleet_bridge_events_total{{outcome="published",source="{SOURCE}"}}'


def shown(name: str) -> float:
    """The sample of this name on the page of /metrics."""
    lines = generate_latest(metrics.REGISTRY).decode().splitlines()
    values = [line.rsplit(" ", 1)[1] for line in lines if line.startswith(f"{name} ")]
    return float(values[0]) if values else 0.0


async def says(bridge: Any, status: str, role: str) -> bool:
    """Whether this is what the bridge's /readyz says now."""
    report = bridge.health.report()
    return (report["status"], report["role"]) == (status, role)


async def test_a_bridge_is_ready_while_events_get_through(world: Any, witness: Any, feed_over: Any):
    """The leader needs its stream, the standby does not; what was published is counted once."""
    await world.lay_out()
    before = shown(PUBLISHED)
    async with AsyncExitStack() as platforms:
        platform = await platforms.enter_async_context(world.platform(events=300))
        async with world.bridge("one") as leader:
            await world.until(partial(says, leader, "ready", "leader"))
            async with world.bridge("two") as standby:
                await world.until(partial(says, standby, "ready", "standby"))
                await feed_over(platform)
                emitted = witness(platform)
                await world.until_saved(emitted[-1])
                assert shown(PUBLISHED) - before == len(emitted)
                await platforms.aclose()
                await world.until(lambda: leader.health.reasons() == {"source": "not connected"})
                assert await says(leader, "not ready", "leader")
                await world.until(partial(says, standby, "ready", "standby"))
        assert leader.health.report()["status"] == "draining"
