"""From items to events: each gets an id and a time, at the pace that was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from fleet import clock
from sandbox.buffer import Buffer, Event
from sandbox.feed import Item
from sandbox.ids import Ulids
from sandbox.ledger import Ledger

BURST: Final = 256  # events between two looks at the rest of the program


class Quote(NamedTuple):
    """The last price of a pair, and the tick that told it, as JSON text."""

    price: Decimal
    tick: str


class Emitter:
    """Makes an item an event: written into the ledger, into the buffer and onto the price board."""

    def __init__(self, ids: Ulids, buffer: Buffer, ledger: Ledger, agent_id: str) -> None:
        self.board: dict[str, Quote] = {}
        self._ids = ids
        self._buffer = buffer
        self._ledger = ledger
        self._agent = msgspec.json.encode(agent_id).decode()

    def emit(self, item: Item) -> None:
        """Emit one item now."""
        event_id, ts_ms = self._ids.next(clock.now_ms())
        text = (
            f'{{"eventId":"{event_id}","type":"{item.type}","agentId":{self._agent},'
            f'"payload":{item.payload},"ts":{ts_ms}}}'
        )
        if item.trade is not None:
            self.board[item.trade.pair] = Quote(item.trade.price, item.payload)
        self._ledger.emitted(event_id, item.type)
        self._buffer.append(Event(event_id, item.type, ts_ms, text.encode()))

    def price_of(self, pair: str) -> Decimal | None:
        """The last price of a pair, or None where it never traded."""
        quote = self.board.get(pair)
        return quote.price if quote else None


class Player:
    """Plays items: `speed` times as fast as the tape, or without a pause where it is None.

    `wake` is called when events have been emitted. Without a pause, the feed waits for
    `room()` now and then, so that it never outruns the client that reads it.
    """

    def __init__(
        self,
        items: Iterator[Item],
        emit: Callable[[Item], None],
        *,
        speed: float | None,
        wake: Callable[[], None],
        room: Callable[[], Awaitable[None]],
    ) -> None:
        self._items = items
        self._emit = emit
        self._speed = speed
        self._wake = wake
        self._room = room

    async def run(self) -> None:
        """Play to the end of the items."""
        try:
            await (self._flat_out() if self._speed is None else self._paced(self._speed))
        finally:
            self._wake()

    async def _flat_out(self) -> None:
        for count, item in enumerate(self._items):
            if count % BURST == 0:
                self._wake()
                await asyncio.sleep(0)
                await self._room()
            self._emit(item)

    async def _paced(self, speed: float) -> None:
        clock = asyncio.get_running_loop().time
        start, first, burst = clock(), None, 0
        for item in self._items:
            first = item.tape_ms if first is None else first
            delay = start + (item.tape_ms - first) / 1000 / speed - clock()
            burst += 1
            if delay > 0 or burst >= BURST:
                self._wake()
                await asyncio.sleep(max(delay, 0))
                burst = 0
            self._emit(item)
