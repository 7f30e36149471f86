"""Makes the lanes of a service anew in another number, while nobody fills or empties them.

With another number a key has another lane, so old and new lanes must never be worked off at the
same time. Everything that waits is gathered in one queue, lane by lane, which keeps the order of
each key; then it is spread over the new lanes. Which of the two is going on stands in the store,
for the broker cannot tell; and while it stands there, no bridge and no worker of it begins.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from fleet.amqp.mover import Message, Way
from fleet.core.errors import BrokerError, EnvelopeError, TopologyError
from fleet.core.events import read_event
from fleet.store import bindings, lane_moves
from fleet.store.api import Tx
from fleet.store.lane_moves import LaneMove
from topology import names
from topology.model import Binding, Lanes, Plan, Queue
from topology.plan import looked_into
from topology.renew import Renewer, kind_of
from topology.site import Site
from topology.todo import Resize

_ANY_TIME: Final = 1 << 62


class Resizer:
    """Gathers the events of a service's lanes, and spreads them over as many as are planned."""

    def __init__(self, plan: Plan, site: Site, renewer: Renewer) -> None:
        self._plan = plan
        self._admin = site.admin
        self._mover = site.mover
        self._store = site.store
        self._tell = site.tell
        self._now_ms = site.now_ms
        self._weigh = site.weigh
        self._renewer = renewer

    async def resize(self, resize: Resize) -> None:
        """Make the lanes anew. Raises TopologyError before anything where they are worked off.

        Run again after it was killed, it goes on where it was.
        """
        lanes, name = resize.service.lanes, resize.service.name
        if lanes is None:
            return
        begun = (await self._store.read(lane_moves.under_way)).get(name)
        if begun is None or begun.step != "spread":
            await self._begin(resize, lanes)
            await self._gather(resize, lanes)
            await self._store.run(partial(self._spreading, resize=resize, lanes=lanes))
        await self._spread(resize, lanes, resumed=begun is not None)
        await self._store.run(partial(self._ended, resize=resize, lanes=lanes))

    async def _begin(self, resize: Resize, lanes: Lanes) -> None:
        """From here on no worker begins; one that is there already is a reason against it all."""
        move = LaneMove(resize.service.name, "gather", lanes.partitions)
        await self._store.run(lambda tx: lane_moves.begin(tx, move, self._now_ms()))
        try:
            await self._refuse_if_consumed(resize)
        except TopologyError:
            if await self._mover.depth(_second(resize.service.name, lanes)) is None:
                await self._store.run(lambda tx: lane_moves.end(tx, move.service))
            raise

    async def _refuse_if_consumed(self, resize: Resize) -> None:
        waiting = 0
        for lane in resize.found:
            ready, consumers = await self._mover.depth(lane) or (0, 0)
            waiting += ready
            if consumers:
                raise TopologyError(
                    f"{lane} has a consumer, and its keys are about to get other lanes; stop the"
                    f" workers of {resize.service.name}, and run it again."
                )
        await self._refuse_too_much(resize, waiting)

    async def _refuse_too_much(self, resize: Resize, waiting: int) -> None:
        """All keys may get one lane; what finds no room there would wait for ever."""
        limits = resize.service.limits
        weights = await self._weigh()
        weight = sum(weights.get(lane, 0) for lane in resize.found)
        if waiting > limits.lane_max_length:
            found, room = f"{waiting:,} messages", f"{limits.lane_max_length:,}"
        elif weight > limits.lane_max_bytes:
            found, room = f"{weight:,} bytes", f"{limits.lane_max_bytes:,}"
        else:
            return
        raise TopologyError(
            f"{found} wait in the lanes of {resize.service.name}, and one lane holds {room};"
            " let the workers handle more of them first, then run it again."
        )

    async def _gather(self, resize: Resize, lanes: Lanes) -> None:
        exchange = names.lanes_exchange(resize.service.name, lanes.type)
        second = _second(resize.service.name, lanes)
        kind = kind_of(self._lane(resize, lanes, 0))
        await self._admin.declare_queue(second, looked_into(kind))
        await self._admin.bind_queue(second, names.REDELIVER, second, {})
        await self._admin.bind_queue(second, names.EVENTS, lanes.type, {})
        await self._admin.unbind_exchange(exchange, names.EVENTS, lanes.type, {})
        for lane in resize.found:
            await self._renewer.patiently(lane, _aside(second), lane)
        if held := await self._renewer.unheld(resize.found):
            raise BrokerError(
                f"Somebody still holds messages of {', '.join(held)}; stop the workers of"
                f" {resize.service.name}, and run it again."
            )
        for lane in resize.found:
            await self._admin.delete_queue(lane)
        self._tell(exchange, f"had {len(resize.found)} lanes")

    async def _spread(self, resize: Resize, lanes: Lanes, *, resumed: bool) -> None:
        exchange = names.lanes_exchange(resize.service.name, lanes.type)
        second = _second(resize.service.name, lanes)
        new = [self._lane(resize, lanes, number) for number in range(lanes.partitions)]
        for queue in new:
            await self._admin.declare_queue(queue.name, queue.arguments)
        for each in self._bindings({queue.name for queue in new}):
            await self._admin.bind_queue(each.destination, each.source, each.key, each.arguments)
        if await self._mover.depth(second) is None:
            return
        spread = _over(resize.service.name, lanes)
        await self._renewer.patiently(second, spread, exchange, once=True)
        await self._admin.bind_exchange(exchange, names.EVENTS, lanes.type, {})
        await self._admin.unbind_queue(second, names.EVENTS, lanes.type, {})
        await self._renewer.patiently(second, spread, exchange)
        # Somebody cut off in an earlier run may hold some of it until the broker notices.
        if resumed and await self._renewer.unheld([second]):
            raise BrokerError(f"{second} cannot be emptied yet; run it again in a while.")
        await self._renewer.patiently(second, spread, exchange)
        await self._admin.delete_queue(second)
        self._tell(exchange, f"has {lanes.partitions} lanes")

    def _lane(self, resize: Resize, lanes: Lanes, number: int) -> Queue:
        name = names.lane(resize.service.name, lanes.type, number)
        return next(queue for queue in self._plan.queues if queue.name == name)

    def _bindings(self, queues: set[str]) -> list[Binding]:
        return [b for b in self._plan.bindings if b.to == "queue" and b.destination in queues]

    def _spreading(self, tx: Tx, *, resize: Resize, lanes: Lanes) -> None:
        """From here on the new lanes count; what the old ones kept for each key goes with it."""
        name = resize.service.name
        lane_moves.move_states(tx, name, lambda key: _lane_of(name, lanes, key))
        lane_moves.begin(tx, LaneMove(name, "spread", lanes.partitions), self._now_ms())

    def _ended(self, tx: Tx, *, resize: Resize, lanes: Lanes) -> None:
        service = resize.service
        bindings.record(tx, service.name, service.fed, self._now_ms(), partitions=lanes.partitions)
        lane_moves.end(tx, service.name)


def _second(service: str, lanes: Lanes) -> str:
    return names.moving(names.lanes_exchange(service, lanes.type))


def _aside(second: str) -> Callable[[Message], Way]:
    return lambda message: Way(names.REDELIVER, second, message.headers)


def _over(service: str, lanes: Lanes) -> Callable[[Message], Way]:
    def way(message: Message) -> Way:
        number = names.partition(_key(message, lanes), lanes.partitions)
        headers = {**message.headers, names.PARTITION: number}
        return Way(names.REDELIVER, names.lane(service, lanes.type, number), headers)

    return way


def _key(message: Message, lanes: Lanes) -> str:
    """The key that keeps its order; what cannot be read has none, and a worker will say so."""
    try:
        # Its own time: how far in the future it may be is the worker's to judge.
        event = read_event(message.body, _ANY_TIME, payload=False)
        return str(event.payload.get(lanes.key, ""))
    except EnvelopeError:
        return ""


def _lane_of(service: str, lanes: Lanes, key: str) -> str:
    return names.lane(service, lanes.type, names.partition(key, lanes.partitions))
