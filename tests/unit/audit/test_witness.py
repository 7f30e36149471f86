"""The witness: what the stand-in platform's ledger says."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from fleet.audit.witness import read_ledger, read_summary
from fleet.core.errors import SettingsError
from sandbox.server import Sandbox
from sandbox.settings import DEMO_KEY, SandboxSettings

HEADERS = {"Authorization": f"Bearer {DEMO_KEY}", "X-Agent-Id": "pf_agent_sandbox"}


async def ended(url: str) -> None:
    """Wait for the end of the feed."""
    async with asyncio.timeout(10):
        while (await read_summary(url))["feed"] != "ended":
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("idempotency", "duplicated"), [(True, 0), (False, 1)])
async def test_the_ledger_tells_events_and_effects(*, idempotency: bool, duplicated: int):
    """Every event by its id; an order executed twice under one key is counted."""
    settings = SandboxSettings(port=0, speed="max", events=300, idempotency=idempotency)
    async with Sandbox(settings) as sandbox:
        await ended(sandbox.url)
        order = {
            "pair": "BTC/USDT",
            "direction": "long",
            "size_usdc": 10,
            "leverage": 1,
            "idempotency_key": "same",
        }
        async with aiohttp.ClientSession(headers=HEADERS) as session:
            for _ in range(2):
                async with session.post(f"{sandbox.url}/api/trade/open", json=order) as answer:
                    await answer.read()
        ledger = await read_ledger(sandbox.url)
        assert len(ledger.events) == sandbox.summary()["emitted"]
        assert (ledger.opened, ledger.duplicated) == (1 + duplicated, duplicated)
        assert ledger.closed == 0


async def test_without_a_witness_it_is_one_sentence():
    """Nobody there, or somebody else."""
    with pytest.raises(SettingsError, match=r"no sandbox with a ledger at http://127.0.0.1:1\."):
        await read_ledger("http://127.0.0.1:1")
