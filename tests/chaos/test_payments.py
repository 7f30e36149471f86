"""Kill -9 of a worker at each step of a payment: one payment at the platform, and all know it."""

from __future__ import annotations

import asyncio
import json
import os
import textwrap
from typing import Any

import aio_pika
import pytest

from fleet import clock
from fleet.core.events import Event, write_event
from fleet.core.ulid import make_ulid
from fleet.store import effects, facts
from fleet.store.facts import Fact
from sandbox.server import Sandbox
from sandbox.settings import SandboxSettings
from topology import names

AGENT, KEY, HIRED = "pf_agent_sandbox", "pf_live_sandbox", "pf_agent_hired"
DEADLINE_S = 200
STEPS = ("reserved", "called", "answered", "committed")
"""Between reserve and call, call and answer, answer and commit, commit and ack."""

# The agent itself, in a worker that dies at one step of one job's payment.
HANDLERS = """
import os, signal
from agent.handlers import service
from agent.venue import Venue
from workers.settle import Settler

STEP, JOB = os.environ.get("DIE_AT", ""), os.environ.get("DIE_JOB", "")
act, settle, ack = Venue.act, Settler._settle, Settler._ack


def die_at(step, hit):
    if hit and step == STEP:
        os.kill(os.getpid(), signal.SIGKILL)


def pays(jobs):
    kinds = [job.event for job in jobs if job.event and job.event.type.startswith("payment.")]
    return any(event.payload["job_id"] == JOB for event in kinds)


async def dying_act(self, path, body, key):
    die_at("reserved", key.endswith(f":{JOB}"))
    answer = await act(self, path, body, key)
    die_at("called", key.endswith(f":{JOB}"))
    return answer


async def dying_settle(self, batch):
    die_at("answered", pays(batch))
    await settle(self, batch)


async def dying_ack(self, jobs):
    die_at("committed", pays(jobs))
    await ack(self, jobs)


Venue.act, Settler._settle, Settler._ack = dying_act, dying_settle, dying_ack
"""


async def publish(fleet: Any, job: str) -> None:
    """Say that a job is done, as the bridge does."""
    now_ms = clock.now_ms()
    event = Event(
        make_ulid(now_ms, os.urandom(10)), "job.completed", AGENT, {"job_id": job}, now_ms
    )
    connection = await aio_pika.connect(fleet.url)
    async with connection, connection.channel(on_return_raises=True) as channel:
        ingest = await channel.get_exchange(names.INGEST, ensure=False)
        message = aio_pika.Message(
            write_event(event), headers={"x-event-id": event.event_id}, delivery_mode=2
        )
        await ingest.publish(message, event.type)


async def hire(fleet: Any, job: str) -> None:
    """Let it be known whom to pay for a job."""
    terms = json.dumps({"recipient": HIRED, "amount_usdc": "12.34"})
    fact = Fact(f"hired/{AGENT}/{job}", terms, make_ulid(1, bytes(10)))
    await fleet.store.run(lambda tx: facts.put(tx, fact))


def key_of(job: str) -> str:
    """The escrow key of a job's payment."""
    return f"escrow:{AGENT}:{HIRED}:1234:{job}"


async def test_a_worker_killed_at_each_step_pays_once(fleet: Any, monkeypatch: pytest.MonkeyPatch):
    """Four workers die at four steps of four payments; the fifth finds out, and pays the rest."""
    (fleet.folder / "paying.py").write_text(textwrap.dedent(HANDLERS))
    settings = SandboxSettings(port=0, wait=True, script_every=0)
    await fleet.store.open()
    async with Sandbox(settings) as sandbox, asyncio.timeout(DEADLINE_S):
        env = {
            "PF_AGENT_ID": AGENT,
            "PF_AGENT_KEY": KEY,
            "PF_API_URL": sandbox.url,
            "PF_API_TIMEOUT_S": "5",
        }
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        await asyncio.to_thread(fleet.run, "topology", "apply", "--handlers", "paying:service")
        for step in STEPS:
            await hire(fleet, step)
            await publish(fleet, step)
            fleet.start(step, handlers="paying:service", DIE_AT=step, DIE_JOB=step)
            while not fleet.is_dead(step):
                await asyncio.sleep(0.05)
            assert fleet._processes[step].returncode == -9
        fleet.start("heir", handlers="paying:service")
        keys = {key_of(step) for step in STEPS}
        while True:
            known = await fleet.store.read(lambda tx: effects.find(tx, keys))
            if {one.state for one in known.values()} == {"done"} and known.keys() == keys:
                break
            await asyncio.sleep(0.1)
        paid = [effect.key for effect in sandbox.ledger._effects]
    await fleet.store.close()
    assert sorted(paid) == sorted(keys)
