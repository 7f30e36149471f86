"""`fleet emit`: an event by hand, which a service gets like any other."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

from fleet.store import archive
from topology import names

LOW = '{"balance_usdc": 1, "threshold_usdc": 2}'


async def emit(shop: Any, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """What `fleet emit` said."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "fleet", "emit", *arguments, "--agent", "me"],
        cwd=shop.folder,
        env={**shop.environment(), **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def test_it_is_handled_once_however_often_it_is_published(shop: Any, wait: Any):
    """It prints the id, under which the event is published again; who did it is on record."""
    first = await emit(shop, "wallet.low_balance", LOW, "--by", "ada", "--note", "a try")
    event_id = first.stdout.strip()
    again = await emit(shop, "wallet.low_balance", LOW, "--id", event_id, "--json")
    assert json.loads(again.stdout) == {"id": event_id, "wanted": True}
    last = (await emit(shop, "wallet.low_balance", LOW)).stdout.strip()

    async def is_done() -> bool:
        return bool(await shop.journal() == {event_id: "done", last: "done"})

    async with shop.working():
        await wait(is_done)
    assert sorted(shop.world()) == sorted([event_id, last])
    done = await shop.store.read(lambda tx: archive.interventions(tx, event_id))
    assert [each.action for each in done] == ["emit", "emit"]
    assert ("ada", "a try") in {(each.operator, each.note) for each in done}


async def test_what_no_service_takes_is_said(shop: Any, wait: Any):
    """An event of a type that nobody binds waits in the queue that the sentence names."""
    said = await emit(shop, "nobody.asked")
    assert said.returncode == 0
    assert names.UNROUTED in said.stderr

    async def waits() -> bool:
        return bool(await shop.depth(names.UNROUTED))

    await wait(waits)


async def test_a_broker_that_is_not_to_be_had_is_one_sentence(shop: Any):
    """Exit code 2, one sentence: there is no such virtual host, or nobody answers."""
    for url in (f"{shop.url}-none", "amqp://me:secret@127.0.0.1:1/"):
        said = await emit(shop, "wallet.low_balance", LOW, AMQP_URL=url)
        assert said.returncode == 2
        assert said.stderr.startswith("fleet: ")
        assert said.stderr.count("\n") == 1
        assert "secret" not in said.stderr
