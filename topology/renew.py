"""Makes queues anew under their own names, with other arguments, while the fleet runs.

A queue cannot be changed, and services consume by name. So for each queue, one after the other:

1. a second queue takes over its bindings, so that what is new waits there;
2. what is in the first is moved there too, or worked off by those who consume it;
3. once nobody holds anything of it, the first is deleted and declared as planned;
4. everything goes back, the bindings too, and the second is deleted.

Which step comes next is seen on the broker, so a run that was killed is gone on with by the next.
A message can be in both queues for a moment, so it may come twice: the journal absorbs that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final

from fleet.amqp.admin import Inequivalent
from fleet.amqp.mover import Full, Message, Way
from fleet.core.errors import BrokerError
from topology import names
from topology.model import Arguments, Binding, Queue, QueueType
from topology.plan import looked_into
from topology.site import Site
from topology.todo import Renewal

APART_S: Final = 1.5
"""Between deleting and declaring: 3.10 may keep a dead consumer of what comes back at once."""
POLL_S: Final = 0.5


class Renewer:
    """Makes queues anew; gives up on one whose consumers hold on to it for the site's patience."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._admin = site.admin
        self._mover = site.mover
        self._tell = site.tell

    async def renew(self, renewals: Iterable[Renewal]) -> list[str]:
        """Make them anew, all together; the names of those that had to be left as they were.

        Raises BrokerError where the broker is lost; run again it goes on where it was.
        """
        wanted = list(renewals)
        begun = [each for each in wanted if await self._is_begun(each)]
        old = [each for each in wanted if await self._is_old(each)]
        for each in old:
            await self.part(each.queue, each.bindings, (*each.bindings, *each.found))
        for each in old:
            await self._empty(each)
        left = await self.unheld([each.queue.name for each in old])
        gone = [each.queue for each in old if each.queue.name not in left]
        for queue in gone:
            await self._admin.delete_queue(queue.name)
        if gone:
            await asyncio.sleep(APART_S)
        for queue in gone:
            await self._admin.declare_queue(queue.name, queue.arguments)
            self._tell(queue.name, "made anew")
        await self._all_home([each for each in wanted if each in begun or each in old], begun)
        return left

    async def part(
        self, queue: Queue, bindings: Iterable[Binding], found: Iterable[Binding]
    ) -> None:
        """Let what comes from now on wait in a second queue."""
        second = names.moving(queue.name)
        if not await self._admin.exists("queue", second):
            await self._admin.declare_queue(second, _waiting(queue))
        await self._admin.bind_queue(*_direct(second))
        for each in bindings:
            await self._admin.bind_queue(second, each.source, each.key, each.arguments)
        for each in found:
            await self._admin.unbind_queue(queue.name, each.source, each.key, each.arguments)
        self._tell(queue.name, "what is new waits aside")

    async def unheld(self, queues: Collection[str]) -> list[str]:
        """Wait until nobody holds a message of these; those that somebody does after all.

        A broker counts what consumers hold every few seconds. Only what was counted twice after
        we had seen the queue empty was surely counted after that.
        """
        waiting = dict.fromkeys(queues, 0)
        marks: dict[str, object] = {}
        deadline = time.monotonic() + self._site.patience_s
        while waiting and time.monotonic() < deadline:
            counts = await self._site.count()
            for queue in list(waiting):
                await self._mover.depth(queue)  # an idle classic queue tells nothing unless asked
                count, mark = counts.get(queue, (-1, None))
                if count != 0:
                    waiting[queue] = 0
                elif marks.get(queue, mark) != mark:
                    waiting[queue] += 1
                marks[queue] = mark
                if waiting[queue] == 2:  # noqa: PLR2004 - twice, as said above
                    del waiting[queue]
            await asyncio.sleep(POLL_S)
        for queue in waiting:
            self._tell(queue, "still held by consumers")
        return list(waiting)

    async def patiently(
        self, source: str, way: Callable[[Message], Way], queue: str, *, once: bool = False
    ) -> None:
        """Move all of `source`, or `once` what waits there now, and wait for room meanwhile.

        Raises BrokerError where no room is made.
        """
        last = time.monotonic()

        def moved(count: int) -> None:
            nonlocal last
            last = time.monotonic()
            self._tell(queue, "moved", count)

        while True:
            try:
                await self._mover.move(source, way, moved)
            except Full:
                if time.monotonic() - last > self._site.patience_s:
                    raise BrokerError(
                        f"{queue} is full, and the rest of its messages waits in {source}; start"
                        " its workers, or let it hold more, and run it again."
                    ) from None
                await asyncio.sleep(POLL_S)
            else:
                ready, _ = await self._mover.depth(source) or (0, 0)
                if once or not ready:
                    return

    async def _is_begun(self, each: Renewal) -> bool:
        return await self._admin.exists("queue", names.moving(each.queue.name))

    async def _is_old(self, each: Renewal) -> bool:
        """Whether it has other arguments; one that is missing is declared by this."""
        try:
            await self._admin.declare_queue(each.queue.name, each.queue.arguments)
        except Inequivalent:
            return True
        return False

    async def _empty(self, each: Renewal) -> None:
        """Move what waits; of a lane only where nobody works it off, so that its order stays."""
        queue, deadline = each.queue.name, time.monotonic() + self._site.patience_s
        second = names.moving(queue)
        while True:
            ready, consumers = await self._mover.depth(queue) or (0, 0)
            if not ready:
                return
            if not (each.service and consumers):
                await self.patiently(queue, _to(second, keeps=_is_timed(each.queue)), queue)
            elif time.monotonic() > deadline:
                return  # the consumers hold it, as the count will say
            else:
                await asyncio.sleep(POLL_S)

    async def _all_home(self, everything: list[Renewal], begun: list[Renewal]) -> None:
        for each in everything:
            await self._home(each)
        # Somebody who was cut off in an earlier run may hold some of it until the broker notices.
        doubtful = [names.moving(each.queue.name) for each in begun]
        if held := await self.unheld(doubtful):
            raise BrokerError(f"{', '.join(held)} cannot be emptied yet; run it again in a while.")
        for each in everything:
            second = names.moving(each.queue.name)
            await self.patiently(second, self._back(each), each.queue.name)
            if not _is_planned(each):
                await self._admin.unbind_queue(*_direct(each.queue.name))
            await self._admin.delete_queue(second)

    async def _home(self, each: Renewal) -> None:
        """Bring back what waits, and then what comes."""
        queue, second = each.queue.name, names.moving(each.queue.name)
        await self._admin.bind_queue(*_direct(queue))
        # Else what is sent home by the queue's name would come back here as well.
        await self._admin.unbind_queue(second, names.REDELIVER, queue, {})
        # First: what the bindings bring then is newer.
        await self.patiently(second, self._back(each), queue, once=True)
        for binding in each.bindings:
            await self._admin.bind_queue(queue, binding.source, binding.key, binding.arguments)
        for binding in each.bindings:
            await self._admin.unbind_queue(second, binding.source, binding.key, binding.arguments)
        await self.patiently(second, self._back(each), queue)

    @staticmethod
    def _back(each: Renewal) -> Callable[[Message], Way]:
        return _to(each.queue.name, keeps=_is_timed(each.queue))


def _to(queue: str, *, keeps: bool) -> Callable[[Message], Way]:
    def way(message: Message) -> Way:
        left_ms = message.expiration_ms if keeps else None
        return Way(names.REDELIVER, queue, message.headers, left_ms)

    return way


def _direct(queue: str) -> tuple[str, str, str, Arguments]:
    """The binding by which one queue alone is reached, by its name."""
    return queue, names.REDELIVER, queue, {}


def _is_planned(each: Renewal) -> bool:
    """Whether it is bound so anyway."""
    return any((b.source, b.key) == (names.REDELIVER, each.queue.name) for b in each.bindings)


def _is_timed(queue: Queue) -> bool:
    """Whether its messages have times of their own: a bucket's go home when those are over."""
    return queue.arguments.get("x-dead-letter-exchange") == names.REDELIVER


def _waiting(queue: Queue) -> Arguments:
    """The second queue's arguments: nothing is dropped or expires, but a bucket's goes home."""
    if _is_timed(queue):
        return queue.arguments
    return looked_into(kind_of(queue))


def kind_of(queue: Queue) -> QueueType:
    """The type of a planned queue."""
    return "classic" if queue.arguments["x-queue-type"] == "classic" else "quorum"
