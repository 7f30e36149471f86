"""The breaker before the venue: when it opens, and who may probe."""

from __future__ import annotations

import pytest

from agent.guard import Guard
from fleet.core.breaker import BreakerPolicy
from fleet.core.errors import NetworkError, NotNowError
from fleet.store import Store

POLICY = BreakerPolicy(failures=1, open_ms=60_000, probe_ms=30_000)
ORDER = "worker-1 event-1"


async def hang(guard: Guard, began_ms: int) -> None:
    """A call that ends without an answer."""
    with pytest.raises(NetworkError):
        async with guard.call(ORDER, began_ms):
            raise NetworkError("no answer")


async def test_it_opens_when_the_call_ends_and_not_when_it_began(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that hung for twenty seconds does not shorten the minute."""
    guard = Guard(store, "venue", POLICY)
    monkeypatch.setattr("fleet.clock.now_ms", lambda: 21_000)
    await hang(guard, 1_000)
    with pytest.raises(NotNowError) as put_off:
        async with guard.call(ORDER, 61_500):
            raise AssertionError("the venue was called")
    assert put_off.value.retry_after == 19.5
    async with guard.call(ORDER, 81_000):
        pass
    assert guard.state(81_000) == "closed"


async def test_an_event_that_comes_back_to_its_worker_is_no_second_probe(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first probe may still be on its way: by this worker or by one of the same name."""
    guards = [Guard(store, "venue", POLICY) for _ in range(2)]
    monkeypatch.setattr("fleet.clock.now_ms", lambda: 1_000)
    await hang(guards[0], 1_000)
    async with guards[0].call(ORDER, 70_000):
        for guard in guards:
            with pytest.raises(NotNowError):
                async with guard.call(ORDER, 70_001):
                    raise AssertionError("two probes at once")
    async with guards[1].call(ORDER, 72_000):
        pass
