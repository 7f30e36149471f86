"""A fleet at one moment, with something of everything."""

from __future__ import annotations

from decimal import Decimal

import pytest

from agent.modes import Health, Standing
from agent.state import AgentState
from fleet.core.breaker import Breaker
from fleet.status.state import Cursor, Group, Lanes, Queues, ServiceState, Shared, State
from fleet.store.api import Lease
from fleet.store.controls import Halt, Pause
from fleet.store.positions import Position
from fleet.store.replicas import Pulse, Replica, Work

NOW = 1_700_000_000_000
SERVICE = "trading.agent"


def worker(name: str, pulse: Pulse, *, heard_s: float = 1.0) -> Replica:
    """A worker that was heard so long ago."""
    at_ms = NOW - int(heard_s * 1000)
    return Replica("worker", name, name, SERVICE, "h1", 7, "0.1.0", NOW - 600_000, at_ms, pulse)


@pytest.fixture
def state() -> State:
    """Two live workers, one that was killed, a bridge, a pause, a halt, failures, a position."""
    busy = Pulse(
        "running",
        handled=12_345,
        failed=14,
        retried=3,
        in_hand=25,
        prefetch=400,
        window_s=30.0,
        rate=812.5,
        lag_s=0.25,
        note="16 of 17 queues paused",
        handlers={
            "on_tick": Work(done=24_000, took={0: 23_000, 3: 900, 5: 100}),
            "on_order": Work(done=300, failed=14, retried=3, took={8: 310, 9: 7}),
        },
    )
    idle = Pulse("running", prefetch=400, window_s=30.0, handlers={"on_tick": Work(postponed=5)})
    bridge = Pulse("leading", handled=99_000, in_hand=12, window_s=30.0, rate=810.0, lag_s=0.02)
    position = Position(
        "k", "pf_agent_1", "BTC/USDC", "long", Decimal("50.00"), Decimal(3), NOW - 90_000, "open"
    )
    doubtful = Position(
        "k0", "pf_agent_1", "ETH/USDC", "short", Decimal("50.00"), Decimal(3), NOW, "closed",
        presumed=Decimal("12.50"),
    )  # fmt: skip
    return State(
        at_ms=NOW,
        replicas=(
            worker("w-1", busy),
            worker("w-2", idle),
            worker("w-3", idle, heard_s=42),
            Replica("bridge", "b-1", "b", "stream", "h1", 8, "0.1.0", NOW - 7_200_000, NOW, bridge),
        ),
        services=(
            ServiceState(
                SERVICE,
                Queues(
                    work=1_234,
                    consumers=2,
                    failed=14,
                    retries={"4": 2, "32": 40},
                    lanes=Lanes(16, 250, 1, {"w-1": 9, "w-2": 6, "w-3": 1}),
                ),
                oldest_failed_ms=NOW - 7_200_000,
                groups=(Group("on_order", "ValueError: number 7 is [odd]", 14, NOW - 30_000),),
            ),
        ),
        shared=Shared(unrouted=3, quarantine=0),
        leases=(Lease("bridge:pf_agent_1", "b-1", 4, NOW + 4_000),),
        cursors=(Cursor("stream", NOW - 20, NOW - 200),),
        pauses=(Pause(SERVICE, "market.*", "prices look odd", "ada", NOW - 300_000),),
        halts=(Halt(SERVICE, "on_order", "f", "ValueError: odd", "w-1", "a", NOW - 29_000),),
        effects={"order.requested": {"done": 41, "unknown": 1}},
        positions=(position,),
        doubtful=(doubtful,),
        agents={
            "pf_agent_1": AgentState(
                standing=Standing("read_only", "the venue fails", since_ms=NOW - 60_000),
                health=Health(balance=Decimal("1041.50")),
                realised=Decimal("12.25"),
            )
        },
        breakers={"venue": Breaker(5, NOW - 12_000)},
    )
