"""The witness: what the stand-in platform's ledger says."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from fleet.audit.witness import read_ledger, read_summary
from fleet.core.errors import SettingsError
from sandbox.server import Sandbox
from sandbox.settings import DEMO_KEY, SandboxSettings

HEADERS = {"Authorization": f"Bearer {DEMO_KEY}", "X-Agent-Id": "pf_agent_sandbox"}


async def ended(url: str) -> None:
    """Wait for the end of the feed."""
    async with asyncio.timeout(60):
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


ID = "01JGFJJZ00000000000000000A"
LINES = "application/x-ndjson"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<html>It works!</html>", "text/html"),
        ("", "text/html"),
        ("nonsense", LINES),
        ("nonsense\n", LINES),
        (f'{{"id":"{ID}"}}\n{{"id":"{ID[:-1]}B"}}', LINES),
        (f'{{"id":"{ID}"}}\n{{"id":"{ID[:-1]}', LINES),
        (f'{{"id":"{ID}7"}}\n', LINES),
        ("x" * (1 << 17), LINES),
    ],
)
async def test_a_page_that_is_no_ledger_is_refused(text: str, kind: str):
    """Of something else, without its last line's end, with what is no id, or without lines."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type=kind)

    app = web.Application()
    app.router.add_get("/{anything:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        with pytest.raises(SettingsError, match="no sandbox with a ledger"):
            await read_ledger(f"http://{host}:{port}")
    finally:
        await runner.cleanup()


async def test_no_password_of_a_witness_is_shown():
    """Its address may hold one."""
    with pytest.raises(SettingsError) as refusal:
        await read_ledger("http://me:s3cr3t@127.0.0.1:1")
    assert "s3cr3t" not in str(refusal.value)


async def test_without_a_witness_it_is_one_sentence():
    """Nobody there, or somebody else."""
    with pytest.raises(SettingsError, match=r"no sandbox with a ledger at http://127.0.0.1:1\."):
        await read_ledger("http://127.0.0.1:1")
