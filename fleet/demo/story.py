"""The demo from the first process to the last figure."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from fleet.amqp.looks import Looks, open_looks
from fleet.audit.auditor import Auditor, Findings, Subject
from fleet.audit.ids import unpack
from fleet.audit.witness import read_ledger, read_summary
from fleet.core.errors import FleetError
from fleet.demo.children import Child, stop_all
from fleet.demo.options import Options
from fleet.demo.place import lay_out
from fleet.demo.progress import Figures, Show
from fleet.demo.venue import VenueEnd, look
from fleet.settings import inherited
from fleet.store import Store, Tx, audit, bridge, cursors, open_store
from sandbox.settings import DEMO_AGENT, DEMO_KEY
from topology import names
from topology.plan import plan

AGENT: Final = DEMO_AGENT
START_MS: Final = 1_735_689_600_000
"""When the made-up market begins: the same seed, the same minutes; and a fast one that began now
would soon tell prices of the future, which no agent believes."""
SOURCE: Final = f"stream:{AGENT}"
LOOK_S: Final = 0.25
STALLED_S: Final = 60.0
OURS: Final = ("PF_", "SANDBOX_", "WORKER_", "MOMENTUM_", "BREAKER_", "MODE_", "PAPER")
_listening = re.compile(r"^sandbox listening on (http://\S+)$", re.MULTILINE).search


class StalledError(FleetError):
    """Nothing has moved for a minute."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a demo ended."""

    findings: Findings
    seconds: float
    """From the first event to the last settlement."""
    workers: tuple[str, ...]
    stalled: str = ""
    """What was still missing when nothing moved any more."""
    skipped_lines: int = 0
    """Lines of the tape that are no trade."""
    venue: VenueEnd | None = None
    """What a venue that misbehaves led to, where it was asked to."""

    @property
    def is_proven(self) -> bool:
        """Whether everything came to its end, nothing is missing and nothing was done twice.

        In a virtual host of the demo's own, an unreadable message of the log is one of ours.
        """
        is_booked = self.venue is None or not self.venue.differences
        is_clean = self.findings.is_clean and not self.findings.unreadable
        return is_clean and is_booked and not self.stalled


class Demo:
    """One demo of `options` for `subject`, at the broker of `amqp_url`, in `folder`."""

    def __init__(
        self, options: Options, subject: Subject, amqp_url: str, folder: Path, show: Show
    ) -> None:
        self._options = options
        self._subject = subject
        self._amqp_url = amqp_url
        self._folder = folder
        self._show = show
        self._store_url = f"sqlite:///{folder / 'fleet.sqlite3'}"
        self._children: list[Child] = []

    async def play(self) -> Ending:
        """Everything, until the last figure. Whatever is raised, no process is left."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._stop)
            store = open_store(self._store_url)
            await store.open()
            stack.push_async_callback(store.close)
            looks = await stack.enter_async_context(open_looks(self._amqp_url))
            await lay_out(plan([self._subject.layout]), self._amqp_url, store)
            url = await self._start_sandbox()
            stage = Stage(self._subject, store, looks, url)
            await self._start_fleet(stage, url)
            return await self._run(stage, store, url)

    async def _run(self, stage: Stage, store: Store, url: str) -> Ending:
        began = time.monotonic()
        stalled = ""
        async with Auditor(self._amqp_url, store, [self._subject], witness=url) as auditor:
            try:
                await self._follow(stage)
                await self._settle(stage, auditor)
            except StalledError as error:
                stalled = str(error)
            seconds = time.monotonic() - began
            self._show.say(stalled or "Everything is settled; bridge and workers are to stop.")
            await stop_all(self._children[1:])
            findings = await auditor.patient(2.0)
            skipped = int((await read_summary(url))["bad_lines"])
        shown = await look(store, url, AGENT, DEMO_KEY) if self._options.venue_faults else None
        workers = tuple(child.name for child in self._children if child.name.startswith("worker"))
        return Ending(findings, seconds, workers, stalled, skipped, shown)

    async def _start_sandbox(self) -> str:
        words = [*self._options.sandbox_words(), "--agent-id", AGENT]
        settings = {"SANDBOX_KEY": DEMO_KEY, "SANDBOX_START_MS": str(START_MS)}
        sandbox = self._child("sandbox", words, settings)
        return await sandbox.says(lambda said: (match := _listening(said)) and match[1])

    async def _start_fleet(self, stage: Stage, url: str) -> None:
        """Start the workers, and once they consume the bridge, and with it the feed."""
        lanes = self._subject.layout.lanes
        platform = {
            "PF_PARTITIONS": str(lanes.partitions if lanes else 1),
            "AMQP_URL": self._amqp_url,
            "STORE_URL": self._store_url,
            "PF_STREAM_URL": f"ws{url.removeprefix('http')}/api/stream",
            "PF_API_URL": url,
            "PF_AGENT_ID": AGENT,
            "PF_AGENT_KEY": DEMO_KEY,
            # A killed bridge holds the lease until it is over: a demo does not wait five seconds.
            "PF_LEASE_TTL_S": "2",
            **self._options.settings(),
        }
        for number in range(1, self._options.workers + 1):
            name = f"worker-{number}"
            words = ["worker", "--handlers", self._options.handlers, "--name", name]
            self._child(name, words, platform)
        await self._until_consuming(stage)
        self._show.say(
            "The feed begins. Orders are events too: more is journaled than the feed has emitted."
        )
        self._child("bridge", ["publisher"], platform)

    def _child(self, name: str, words: list[str], settings: Mapping[str, str]) -> Child:
        kept = inherited(without=OURS)
        child = Child(name, words, {**kept, "PYTHONUNBUFFERED": "1", **settings}, self._folder)
        child.start()
        self._children.append(child)
        return child

    async def _until_consuming(self, stage: Stage) -> None:
        deadline = time.monotonic() + STALLED_S
        while not await stage.is_consumed(self._options.workers):
            self._check()
            if time.monotonic() > deadline:
                raise StalledError("The workers do not consume.")
            await asyncio.sleep(LOOK_S)

    async def _follow(self, stage: Stage) -> None:
        """Watch until the feed has ended, the bridge has it all, and the queues are empty."""
        total = self._options.ticks()
        kills = [(1 / 3, "worker-1"), (2 / 3, "bridge")] if self._options.kill else []
        async for figures in self._moving(stage):
            self._show.figures(figures, figures.journaled)
            while kills and figures.received >= kills[0][0] * total:
                await self._kill(kills.pop(0)[1])
            if figures.feed == "ended" and not figures.queued and await stage.is_bridged():
                return

    async def _settle(self, stage: Stage, auditor: Auditor) -> None:
        """Watch until every event has been brought to an end."""
        async for _ in self._moving(stage):
            findings = await auditor.look()
            counts = findings.reckoning.fleet.counts
            if not counts["waiting"] and not findings.reckoning.unaccounted:
                return

    async def _moving(self, stage: Stage) -> AsyncIterator[Figures]:
        """The figures again and again. Raises StalledError once they have not moved for long."""
        before, since = Figures(), time.monotonic()
        while True:
            self._check()
            figures = await stage.figures()
            yield figures
            if figures != before:
                before, since = figures, time.monotonic()
            elif time.monotonic() - since > STALLED_S:
                raise StalledError(f"Nothing has moved for {STALLED_S:.0f} s: {figures}.")
            await asyncio.sleep(LOOK_S)

    async def _kill(self, name: str) -> None:
        child = next(each for each in self._children if each.name == name)
        await asyncio.to_thread(child.kill)
        self._show.say(f"kill -9 {name}")
        child.start()
        self._show.say(f"{name} is started again")

    def _check(self) -> None:
        for child in self._children:
            child.check()

    async def _stop(self) -> None:
        await stop_all(self._children)


class Stage:
    """What can be seen of a demo from outside of its processes."""

    def __init__(self, subject: Subject, store: Store, looks: Looks, url: str) -> None:
        self._subject = subject
        self._store = store
        self._looks = looks
        self._url = url
        self._last = ""
        self._ended = False

    async def figures(self) -> Figures:
        """How far everybody is."""
        summary = await read_summary(self._url)
        received, journaled = await self._store.read(partial(_counts, self._subject.name))
        self._ended = summary["feed"] == "ended"
        return Figures(
            emitted=summary["emitted"],
            feed=summary["feed"],
            received=received,
            journaled=journaled,
            effects=summary["effects"],
            queued=await self._queued() if self._ended else 0,
        )

    async def is_consumed(self, workers: int) -> bool:
        """Whether each worker takes from the work queue, and each lane has somebody."""
        queues = self._subject.queues
        depths = await self._looks.depths(queues)
        work = names.work_queue(self._subject.name)
        lanes = [queue for queue in queues if queue != work and ".retry." not in queue]
        enough = {**dict.fromkeys(lanes, 1), work: workers}
        if not self._subject.layout.patterns:
            del enough[work]
        return all(depths[queue].consumers >= count for queue, count in enough.items())

    async def is_bridged(self) -> bool:
        """Whether the bridge's cursor stands at the last event of a feed that has ended."""
        if not self._last:
            events = (await read_ledger(self._url)).events
            self._last = unpack(max(events)) if events else ""
        cursor = await self._store.read(partial(cursors.get, source=SOURCE))
        return cursor >= self._last

    async def _queued(self) -> int:
        depths = await self._looks.depths(self._subject.queues)
        return sum(depth.ready for depth in depths.values())


def _counts(service: str, tx: Tx) -> tuple[int, int]:
    received = bridge.counts(tx, SOURCE).get("received", 0)
    return received, sum(audit.outcomes(tx, service).values())
