"""The runbook's commands do what it says."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

from fleet import clock
from fleet.store import Candidate, Claim, EffectResult, Settled
from topology import names

RUNBOOK = Path(__file__).parents[3] / "docs" / "runbook.md"
BLOCKS = re.findall(r"^```sh\n(.*?)^```", RUNBOOK.read_text("utf-8"), re.MULTILINE | re.DOTALL)
ORDER = {"pair": "A/USD", "direction": "long", "leverage": 1, "timestamp_ms": 1}


def commands(shop: Any) -> str:
    """Shell functions that stand for the installed scripts, for the service of the test."""
    handlers = f"--handlers {shop.module}:service"
    return f"""
set -euo pipefail
replay-failed() {{ sub=$1; shift; {sys.executable} -m fleet.cli.failed "$sub" {handlers} "$@"; }}
fleet() {{
  if [ "$1" = effects ]; then sub="$1 $2"; shift 2; else sub=$1; shift; fi
  {sys.executable} -m fleet $sub {handlers} "$@"
}}
set -x
"""


async def unknown(shop: Any, event_id: str) -> None:
    """An order whose outcome nobody knows."""
    now_ms = clock.now_ms()
    claim = Claim("k2", "order.requested", "w", now_ms)
    await shop.store.admit([Candidate(shop.service.name, event_id, 0, claim)], now_ms)
    result = EffectResult("k2", "unknown", holder="w")
    await shop.store.commit(
        [Settled(shop.service.name, event_id, "failed", 1, "w", now_ms, effect=result)]
    )


async def test_the_runbook_can_be_followed(shop: Any):
    """Every command, in its order, ends well, and at the end the queue holds what it should."""
    group = await shop.park([shop.event("wallet.low_balance") for _ in range(30)])
    fingerprint = (await shop.entries())[0].fingerprint
    lane = names.lane(shop.service.name, "market.tick", 0)
    tick = shop.event("market.tick", {"pair": "A", "price": 1, "timestamp_ms": 1}, age_s=90)
    order = shop.event("order.requested", {**ORDER, "size_usdc": 80, "key": "k1"})
    asked = shop.event("order.requested", {**ORDER, "size_usdc": 8, "key": "k2"})
    odd = shop.event("escrow.released", {"escrow_id": "e", "amount_usdc": 1})
    await shop.park([tick], home=lane, kind="Timeout")
    await shop.park([order, asked, odd], kind="Refused")
    await unknown(shop, asked.event_id)
    variables = {
        "GROUP": fingerprint,
        "ID": odd.event_id,
        "OLD": tick.event_id,
        "ORDER": order.event_id,
        "KEY": "k2",
    }
    async with shop.working():
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            commands(shop) + "\n".join(BLOCKS),
            cwd=shop.folder,
            env={**shop.environment(), **variables},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 900)
    assert process.returncode == 0, out.decode()
    assert [entry.id for entry in await shop.entries()] == [odd.event_id]
    assert sorted(shop.world()) == sorted([*group, tick.event_id, "k1", "k2"])
