"""Proves with one canary each that what fails and what is delayed arrives.

The failed road: through `pf.events.dlx` into the failed queue, as a worker fails a message, and
taken back there by its id. The retry road: through `pf.redeliver` into the first bucket, and home
by the broker's own dead-lettering; the worker that gets it writes it down as skipped.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from fleet import clock
from fleet.amqp.connection import Link
from fleet.amqp.harvest import Harvest, Held, open_harvest
from fleet.amqp.looks import Looks, open_looks
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.core.canary import SKIPPED, canary
from fleet.core.envelope import ERROR_MESSAGE, EVENT_ID, event_headers
from fleet.core.errors import PublishNacked, PublishReturned, PublishUnknown
from fleet.core.events import Event, write_event
from fleet.core.signature import Keys
from fleet.core.ulid import make_ulid
from fleet.doctor.finding import Finding
from fleet.store import journal
from fleet.store.api import Store
from topology import names

MOST: Final = 100
"""A failed queue with more is left alone: to find one message all of them are taken in hand."""
HOME_S: Final = 10.0
ANSWER_S: Final = 5.0
LOOK_S: Final = 0.1
DELAY_MS: Final = 50
_APPLY: Final = "`fleet topology check` says what is missing, `fleet topology apply` declares it."
_FULL: Final = "Empty it: `fleet failed list`."


class Roads:
    """The roads of services at the broker of `url`; made by `open_roads`."""

    def __init__(
        self,
        url: str,
        publisher: ConfirmedPublisher,
        looks: Looks,
        store: Store | None,
        keys: Keys | None,
    ) -> None:
        self._keys = keys
        self._url = url
        self._publisher = publisher
        self._looks = looks
        self._store = store

    async def to_failed(self, service: str) -> Finding:
        """Whether what a worker fails reaches the failed queue. Raises an OperatorError."""
        queue, event = names.failed(service), _canary()
        depth = (await self._looks.depths([queue])).get(queue)
        if depth is not None and depth.ready > MOST:
            text = f"The failed road was not tried: {depth.ready:,} messages wait in {queue}."
            return Finding("failed road", "warn", text, _FULL)
        if trouble := await self._send(names.DLX, queue, event):
            text = f"What fails in {service} is lost or stuck: {trouble}"
            return Finding("failed road", "fail", text, _APPLY)
        if depth is not None and await self._take_back(queue, event):
            text = f"What fails in {service} reaches {queue}; the canary was taken back."
            return Finding("failed road", "ok", text)
        if await self._take_back(names.UNROUTED, event):
            text = f"What fails in {service} goes to {names.UNROUTED}: {queue} is not bound."
            return Finding("failed road", "fail", text, _APPLY)
        text = f"The canary {event.event_id} was confirmed but is not in {queue}."
        return Finding("failed road", "warn", text, "Somebody else reads there now; try again.")

    async def home(self, service: str, *, withheld: bool) -> Finding:
        """Whether what is delayed comes back to the work queue. Raises an OperatorError.

        Where nobody works, or all is `withheld`, the canary waits there and is skipped later.
        """
        work, bucket, event = names.work_queue(service), names.retry(service, 0), _canary()
        before = await self._looks.depths([work, bucket])
        if work not in before or bucket not in before:
            text = f"The retry road of {service} cannot be tried: its queues are not there."
            return Finding("retry road", "fail", text, _APPLY)
        begun = time.monotonic()
        if trouble := await self._send(names.REDELIVER, bucket, event, DELAY_MS):
            text = f"What {service} delays is stuck: {trouble}"
            return Finding("retry road", "fail", text, _APPLY)
        if before[work].consumers and not withheld and self._store is not None:
            reason = await _within(HOME_S, lambda: self._journalled(service, event))
            took = time.monotonic() - begun
            text = f"What {service} delays comes home; the canary took {took:.1f} s."
            if reason == SKIPPED:
                return Finding("retry road", "ok", text)
            if reason:
                fix = "Bring all workers to one version; `fleet failed archive` takes it away."
                return Finding(
                    "retry road", "warn", f"{text} A worker did not know it ({reason}).", fix
                )
        elif await _within(HOME_S, lambda: self._arrived(work, before[work].ready)):
            text = f"What {service} delays comes home; the canary waits to be skipped by a worker."
            return Finding("retry road", "ok", text)
        return await self._astray(service, event, bucket)

    async def _astray(self, service: str, event: Event, bucket: str) -> Finding:
        if await self._take_back(names.UNROUTED, event):
            text = f"What {service} delays goes to {names.UNROUTED}, not home."
            return Finding("retry road", "fail", text, _APPLY)
        stuck = (await self._looks.depths([bucket])).get(bucket)
        where = f" It is still in {bucket}." if stuck and stuck.ready else ""
        text = f"A canary that {service} delayed is not home after {HOME_S:g} s.{where}"
        return Finding("retry road", "fail", text, _APPLY)

    async def _send(
        self, exchange: str, key: str, event: Event, expiration_ms: int | None = None
    ) -> str:
        """Publish a canary; why the broker did not take it, "" where it did."""
        body = write_event(event)
        headers = {**event_headers(event), ERROR_MESSAGE: "canary of fleet doctor"}
        try:
            await self._publisher.publish(
                exchange,
                key,
                body,
                headers=self._keys.stamped(headers, body) if self._keys else headers,
                expiration_ms=expiration_ms,
                timeout_s=ANSWER_S,
            )
        except PublishNacked:
            return f"{key} is full or has no leader."
        except PublishReturned:
            return f"nothing is bound to {exchange} for {key}."
        except PublishUnknown:
            # A refusal closes the channel, and only then says why.
            await asyncio.sleep(LOOK_S)
            if self._publisher.refusal is not None:
                raise self._publisher.refusal from None
            return f"the broker does not answer within {ANSWER_S:g} s."
        return ""

    async def _take_back(self, queue: str, event: Event) -> bool:
        """Take the canary out of a queue that people look into; the rest goes back."""
        depth = (await self._looks.depths([queue])).get(queue)
        if depth is None or not 0 < depth.ready <= MOST:
            return False
        async with open_harvest(self._url, queue) as harvest:
            return await _taken(harvest, event.event_id)

    async def _journalled(self, service: str, event: Event) -> str:
        """The reason in its journal row; "" where there is none yet."""
        if self._store is None:
            return ""
        found = await self._store.read(lambda tx: journal.verdict(tx, service, event.event_id))
        return (found[1] or found[0]) if found else ""

    async def _arrived(self, work: str, before: int) -> str:
        depth = (await self._looks.depths([work])).get(work)
        return "there" if depth is not None and depth.ready > before else ""


@asynccontextmanager
async def open_roads(url: str, store: Store | None, keys: Keys | None) -> AsyncIterator[Roads]:
    """Connections to prove roads over. Raises BrokerError."""
    link = Link(url, "flea-fleet doctor", patience_s=2.0)
    async with (
        open_looks(url) as looks,
        link,
        ConfirmedPublisher(link, channels=1) as publisher,
    ):
        yield Roads(url, publisher, looks, store, keys)


async def _taken(harvest: Harvest, event_id: str) -> bool:
    found: list[Held] = []

    def take(held: Held) -> bool:
        if _id(held.headers) == event_id:
            found.append(held)
        return not found

    await harvest.gather(take)
    for held in found:
        harvest.ack(held)
    await harvest.flush()
    return bool(found)


def _id(headers: Mapping[str, Any]) -> object:
    return headers.get(EVENT_ID)


async def _within(seconds: float, ask: Callable[[], Any]) -> str:
    """The first answer that is not empty; "" where none comes in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := await ask():
            return str(answer)
        await asyncio.sleep(LOOK_S)
    return ""


def _canary() -> Event:
    now_ms = clock.now_ms()
    return canary(make_ulid(now_ms, os.urandom(10)), now_ms)
