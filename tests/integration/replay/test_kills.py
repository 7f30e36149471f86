"""`replay-failed` killed at every step: nothing is lost, and running it again finishes."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from typing import Any

import pytest

# Runs the command line and dies by kill -9 at the n-th call of one function of ours.
DEADLY = """
import importlib, os, sys
where, after, count = sys.argv[1], sys.argv[2] == "after", int(sys.argv[3])
module, kind, name = where.rsplit(".", 2)
owner = getattr(importlib.import_module(module), kind)
real, calls = getattr(owner, name), 0

def deadly(*args, **kwargs):
    global calls
    calls += 1
    if not after and calls == count:
        os.kill(os.getpid(), 9)
    result = real(*args, **kwargs)
    if after and calls == count:
        os.kill(os.getpid(), 9)
    return result

async def deadly_too(*args, **kwargs):
    global calls
    calls += 1
    if not after and calls == count:
        os.kill(os.getpid(), 9)
    result = await real(*args, **kwargs)
    if after and calls == count:
        os.kill(os.getpid(), 9)
    return result

import inspect
setattr(owner, name, deadly_too if inspect.iscoroutinefunction(real) else deadly)
from fleet.cli.failed import command
command(sys.argv[4:])
"""
RUN = (
    "fleet.amqp.harvest.Harvest.gather after 1",
    "replay.sending.Sender._write_down before 1",
    "replay.sending.Sender._write_down after 1",
    "fleet.amqp.publisher.ConfirmedPublisher.post after 200",
    "fleet.amqp.harvest.Harvest.flush before 1",
    "fleet.amqp.harvest.Harvest.flush after 1",
    "fleet.amqp.harvest.Harvest.give_back before 1",
    "fleet.amqp.harvest.Harvest.give_back after 1",
)
RESOLVE = (
    "fleet.store.thread.ThreadStore.run before 1",
    "fleet.store.thread.ThreadStore.run after 1",
    "fleet.amqp.harvest.Harvest.flush before 1",
    "fleet.amqp.harvest.Harvest.flush after 1",
)


async def killed(shop: Any, step: str, *arguments: str) -> None:
    """Run `replay-failed` until it kills itself at `step`."""
    script = shop.folder / "deadly.py"
    script.write_text(textwrap.dedent(DEADLY))
    command, *rest = arguments
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        *step.split(),
        command,
        "--handlers",
        f"{shop.module}:service",
        *rest,
        cwd=shop.folder,
        env=shop.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == -9, err


async def waiting(shop: Any, count: int) -> bool:
    """Whether the broker has noticed the death: all of them wait somewhere."""
    return bool(await shop.depth(shop.queue) + await shop.depth(shop.work) >= count)


@pytest.mark.parametrize("step", RUN)
async def test_a_killed_run_is_finished_by_the_next(shop: Any, wait: Any, step: str):
    """Each message is handled once, whatever the dead run had sent or acked."""
    ids = await shop.park([shop.event("wallet.low_balance") for _ in range(400)])
    await shop.cli("plan", "-o", "plan.json", "--json")
    await killed(shop, step, "run", "plan.json", "--yes")
    await wait(lambda: waiting(shop, 400))
    report = await shop.cli("run", "plan.json", "--yes", "--json")
    assert report["sent"] + report["gone"] == 400
    await shop.counted(shop.queue, 0)
    assert (await shop.cli("run", "plan.json", "--yes", "--json"))["sent"] == 0
    async with shop.working():
        await wait(lambda: len(shop.world()) >= 400)
        await wait(lambda: shop.is_empty(shop.work))
    assert sorted(shop.world()) == sorted(ids)


async def test_a_second_copy_for_a_pure_handler_does_nothing(shop: Any, wait: Any):
    """Sent, handled, and sent again by the next run, for the first one died before its acks."""
    ids = await shop.park([shop.event("price.moved") for _ in range(50)])
    await shop.cli("plan", "-o", "plan.json", "--json")
    await killed(shop, "fleet.amqp.harvest.Harvest.flush before 1", "run", "plan.json", "--yes")
    async with shop.working():
        await wait(lambda: len(shop.world()) >= 50)
        await wait(lambda: waiting(shop, 50))
        await shop.cli("run", "plan.json", "--yes", "--json")
        await wait(lambda: shop.is_empty(shop.work))
    assert sorted(shop.world()) == sorted(ids)
    assert set((await shop.journal()).values()) == {"done"}


@pytest.mark.parametrize("step", RESOLVE)
async def test_a_killed_resolve_is_finished_by_the_next(shop: Any, wait: Any, step: str):
    """Each message is in the queue or in the archive, and at the end once in the archive."""
    ids = await shop.park([shop.event("wallet.low_balance") for _ in range(10)])
    how = ("--note", "known", "--yes", "--json")
    await killed(shop, step, "resolve", *how)
    rows = await shop.store.read(lambda tx: tx.query("SELECT message_id FROM archive"))
    kept = {name for (name,) in rows}

    async def are_back() -> bool:
        return {entry.id for entry in await shop.entries()} | kept == set(ids)

    await wait(are_back)
    left = await shop.entries()
    await shop.cli("resolve", *how, code=0 if left else 1)
    rows = await shop.store.read(lambda tx: tx.query("SELECT message_id FROM archive"))
    assert sorted(name for (name,) in rows) == sorted(ids)
    await shop.counted(shop.queue, 0)


async def test_a_broker_that_dies_loses_none(fresh_shop: Any, fresh_broker: Any, wait: Any):
    """Killed amid a run: it ends in words, and the next run sends what is left."""
    ids = await fresh_shop.park([fresh_shop.event("wallet.low_balance") for _ in range(300)])
    process = fresh_shop.start("run", "--rate", "20", "--yes", "--json")
    await wait(lambda: fresh_shop.depth(fresh_shop.work))
    await asyncio.to_thread(fresh_broker.kill)
    await asyncio.to_thread(fresh_broker.restart)
    out, err = await asyncio.to_thread(process.communicate, timeout=120)
    assert process.returncode in (1, 2), (out, err)
    assert "Traceback" not in err

    async def all_there() -> bool:
        return await waiting(fresh_shop, 300)

    await wait(all_there)
    await fresh_shop.cli("run", "--yes", "--json")
    await fresh_shop.counted(fresh_shop.queue, 0)
    home = await fresh_shop.take_all(fresh_shop.work)
    assert {held.headers["x-event-id"] for held in home} == set(ids)
