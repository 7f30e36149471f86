"""Every test here runs over the kind of store that `--store` names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from fleet.store import Settled, Store, open_store


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """An open, empty store."""
    opened = open_store(store_url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def other(store: Store, store_url: str) -> AsyncIterator[Store]:
    """The same store, opened a second time as another process would."""
    assert store is not None
    opened = open_store(store_url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def done() -> Callable[..., Settled]:
    """A handled delivery: `done("E1", outcome="failed", …)`."""

    def make(event_id: str, **more: object) -> Settled:
        fields: dict[str, object] = {
            "service": "svc",
            "event_id": event_id,
            "outcome": "done",
            "attempt": 1,
            "worker": "worker-1",
            "at_ms": 1_000,
        }
        return Settled(**(fields | more))  # type: ignore[arg-type]  # each caller names its own

    return make
