"""Every test here runs over the kind of store that `--store` names."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fleet.store import Store, open_store


@pytest.fixture
async def other(store: Store, store_url: str) -> AsyncIterator[Store]:
    """The same store, opened a second time as another process would."""
    assert store is not None
    opened = open_store(store_url)
    await opened.open()
    yield opened
    await opened.close()
