"""Ten thousand failed messages."""

from __future__ import annotations

import time
from typing import Any

import structlog

COUNT = 10_000

log = structlog.get_logger()


async def test_ten_thousand_are_listed_and_replayed(shop: Any):
    """All are grouped, all come home, and nothing of it holds the queue for long."""
    await shop.park([shop.event("wallet.low_balance", {"n": n}) for n in range(COUNT)])
    ids = sorted(entry.id for entry in await shop.entries())
    began = time.monotonic()
    listed = await shop.cli("list", "--json")
    log.info("listed", seconds=time.monotonic() - began)
    (group,) = listed["groups"]
    assert (listed["waiting"], group["count"]) == (COUNT, COUNT)
    page = await shop.cli("list", "--each", "--after", ids[9989], "--limit", "5", "--json")
    assert [each["id"] for each in page["messages"]] == ids[9990:9995]
    plan = await shop.plan()
    began = time.monotonic()
    report = await shop.run(plan)
    log.info("replayed", per_second=COUNT / (time.monotonic() - began))
    assert report.sent == COUNT
    await shop.counted(shop.queue, 0)
    await shop.counted(shop.work, COUNT)
