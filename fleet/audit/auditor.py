"""Gathers the evidence of a fleet, running or not, and reckons."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

from fleet import clock
from fleet.amqp.log import Logged, LogReader, open_log
from fleet.amqp.looks import Depth, Looks, open_looks
from fleet.audit.books import Books, Journal, missed_ids, read_books, read_journal
from fleet.audit.ids import Id, pack, pack_if_ulid
from fleet.audit.reckoning import Evidence, Kind, Part, Reckoning, reckon
from fleet.audit.witness import Ledger, read_ledger
from fleet.core.envelope import EVENT_ID
from fleet.core.errors import EnvelopeError
from fleet.core.events import read_event
from fleet.core.ulid import ENTROPY_BYTES, MAX_MS, make_ulid
from fleet.store import archive, bindings
from fleet.store.api import Store
from topology import names
from topology.model import ServiceLayout
from topology.patterns import matches

_ID_IN_FRAME = re.compile(rb'"eventId"\s*:\s*"([0-7][0-9A-HJKMNP-TV-Z]{25})"').search
AGAIN_S: Final = 0.5
TICK: Final = "market.tick"


@dataclass(frozen=True, slots=True)
class Subject:
    """A service to be audited."""

    layout: ServiceLayout
    kind: Callable[[str], Kind]

    @property
    def name(self) -> str:
        """The service's name."""
        return self.layout.name

    @property
    def queues(self) -> list[str]:
        """Where its deliveries may wait: work queue, lanes and retry buckets."""
        layout = self.layout
        buckets = [names.retry(layout.name, number) for number in range(layout.buckets)]
        return [names.work_queue(layout.name), *layout.lane_queues, *buckets]


@dataclass(frozen=True, slots=True)
class Findings:
    """All that an audit has found."""

    reckoning: Reckoning
    journals: Mapping[str, Journal]
    books: Books
    depths: Mapping[str, Depth]
    ledger: Ledger | None
    unreadable: int
    """Messages of the log without an event id that can be read."""
    others: tuple[str, ...] = ()
    """Services of the same store that are not looked at."""

    @property
    def doubled(self) -> int:
        """Effects that were had twice: at the venue, where it can be asked, and in the book."""
        return self.books.doubled + (self.ledger.duplicated if self.ledger else 0)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is unaccounted and nothing was done twice.

        Unreadable messages of the log do not count: whoever wrote them, no event is missing, and
        they would stand there until the log is pruned.
        """
        return not self.reckoning.unaccounted and not self.doubled

    @property
    def ages_ms(self) -> Counter[int]:
        """How long ticks took from the stream to their handler, over all services."""
        return sum((journal.ages_ms for journal in self.journals.values()), Counter())


class Auditor:
    """Audits `subjects` at the broker of `amqp_url` over an open store; in an `async with` block.

    The log is read once, and on from there each time. `unacked` says how many deliveries are in
    the hands of consumers of these queues, or None where nobody can say. `witness` is the address
    of a stand-in platform with a ledger.
    """

    def __init__(
        self,
        amqp_url: str,
        store: Store,
        subjects: Sequence[Subject],
        *,
        unacked: Callable[[Sequence[str]], int | None] = lambda _: None,
        witness: str | None = None,
    ) -> None:
        self._amqp_url = amqp_url
        self._store = store
        self._subjects = subjects
        self._unacked = unacked
        self._witness = witness
        self._log: dict[Id, str] = {}
        self._types: dict[str, str] = {}
        self._unreadable = 0
        self._stack = AsyncExitStack()
        self._reader: LogReader | None = None
        self._looks: Looks | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._reader = await stack.enter_async_context(open_log(self._amqp_url, names.LOG))
            self._looks = await stack.enter_async_context(open_looks(self._amqp_url))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def patient(self, patience_s: float) -> Findings:
        """Findings that are clean, or still are not after `patience_s` seconds without a change.

        What a running fleet has in its hands has no journal row yet: a moment later it has. Only
        events that happened before the call are looked at.
        """
        until_ms = clock.now_ms()
        findings, since = await self.look(until_ms), time.monotonic()
        while findings.reckoning.unaccounted and time.monotonic() - since < patience_s:
            before = len(findings.reckoning.unaccounted)
            await asyncio.sleep(AGAIN_S)
            findings = await self.look(until_ms)
            if len(findings.reckoning.unaccounted) < before:
                since = time.monotonic()
        return findings

    async def look(self, until_ms: int = MAX_MS) -> Findings:
        """What can be found now of events up to `until_ms`, by the times in their ids."""
        ledger = await read_ledger(self._witness) if self._witness else None
        await self._reading.catch_up(self._note)
        books = await read_books(self._store)
        fed = await self._store.read(bindings.fed)
        # The queues are looked at before the journal: what leaves them in between has its row.
        depths = await self._looking.depths([q for each in self._subjects for q in each.queues])
        held = [await self._holds(subject, depths) for subject in self._subjects]
        journals = {each.name: await self._journal(each.name) for each in self._subjects}
        unrouted = await self._ids_in(names.UNROUTED) | await self._resolved(names.UNROUTED)
        parts = [
            Part(
                name=subject.name,
                kind=subject.kind,
                journal=journals[subject.name].outcomes,
                failed=await self._ids_in(names.failed(subject.name)),
                holds=holds,
                since=partial(_since, fed.get(subject.name)),
            )
            for subject, holds in zip(self._subjects, held, strict=True)
        ]
        quarantined, nameless = await self._quarantined(books)
        others = tuple(sorted(fed.keys() - {each.name for each in self._subjects}))
        evidence = Evidence(
            log=self._log,
            parts=parts,
            shed=books.shed,
            unrouted=unrouted,
            quarantined=quarantined,
            nameless=nameless,
            missed=missed_ids(books),
            witness=ledger.events if ledger else frozenset(),
            elsewhere=lambda kind: any(matches(p, kind) for each in others for p in fed[each]),
            until=pack(make_ulid(until_ms, b"\xff" * ENTROPY_BYTES)),
        )
        reckoning = reckon(evidence)
        return Findings(reckoning, journals, books, depths, ledger, self._unreadable, others)

    @property
    def _reading(self) -> LogReader:
        if self._reader is None:
            raise RuntimeError("an auditor works in an `async with` block")
        return self._reader

    @property
    def _looking(self) -> Looks:
        if self._looks is None:
            raise RuntimeError("an auditor works in an `async with` block")
        return self._looks

    async def _resolved(self, queue: str) -> frozenset[Id]:
        """What an operator took out of a queue: it is in the archive."""
        ids = await self._store.read(lambda tx: archive.resolved_ids(tx, queue))
        return frozenset(event for event in map(pack_if_ulid, ids) if event is not None)

    async def _journal(self, service: str) -> Journal:
        return await read_journal(self._store, service, self._is_tick)

    def _is_tick(self, event: Id) -> bool:
        return self._log.get(event) == TICK

    async def _holds(self, subject: Subject, depths: Mapping[str, Depth]) -> bool:
        if any(depths[queue].ready for queue in subject.queues if queue in depths):
            return True
        if not any(depths[queue].consumers for queue in subject.queues if queue in depths):
            return False
        return bool(await asyncio.to_thread(self._unacked, subject.queues))

    def _note(self, message: Logged) -> None:
        event = _id_of(message.headers, message.body)
        if event is None:
            self._unreadable += 1
        else:
            self._log[event] = self._types.setdefault(message.key, message.key)

    async def _ids_in(self, queue: str) -> frozenset[Id]:
        found = (
            _id_of(message.header.properties.headers or {}, bytes(message.body))
            for message in await self._looking.browse(queue)
        )
        return frozenset(event for event in found if event is not None)

    async def _quarantined(self, books: Books) -> tuple[frozenset[Id], int]:
        """The ids in quarantined frames, and how many frames have none."""
        if not books.quarantined:
            return frozenset(), 0
        frames = [bytes(each.body) for each in await self._looking.browse(names.QUARANTINE)]
        found = {match[1] for match in map(_ID_IN_FRAME, frames) if match}
        ids = frozenset(pack(each.decode()) for each in found)
        return ids, max(0, books.quarantined - len(ids))


def _since(fed: Mapping[str, int] | None, event_type: str) -> Id:
    """The first id that must have come: by when the type was bound, where that is known."""
    bound = [at_ms for pattern, at_ms in (fed or {}).items() if matches(pattern, event_type)]
    return pack(make_ulid(min(bound), bytes(ENTROPY_BYTES))) if bound else b""


def _id_of(headers: Mapping[str, Any], body: bytes) -> Id | None:
    """The event's id: by its header, else by its body."""
    claimed = pack_if_ulid(headers.get(EVENT_ID))
    if claimed is not None:
        return claimed
    try:
        return pack(read_event(body, clock.now_ms(), payload=False).event_id)
    except EnvelopeError:
        return None
