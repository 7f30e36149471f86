"""One delivery on its way through the runtime."""

from __future__ import annotations

import asyncio
from typing import Any

from fleet.amqp.delivery import Delivery
from fleet.core.decision import Decision
from fleet.core.envelope import Headers
from fleet.core.events import Event
from fleet.store.api import Standing
from workers.context import Context
from workers.registry import Handler

UNSEEN = Standing()


class Job:
    """A delivery, what was read from it, and what became of it.

    `event` and `handler` are None where the delivery could not be read or nobody handles it; then
    a decision stands from the start. `where` is the place in the code where its handler raised.
    `passed` is set once nobody has to wait for it any more.
    Without a decision it is dropped: its channel is gone, and it comes again.
    """

    __slots__ = (
        "context",
        "decision",
        "delivery",
        "epoch",
        "event",
        "handler",
        "headers",
        "held_until_ms",
        "holder",
        "in_hand",
        "key",
        "passed",
        "payload",
        "sequence",
        "standing",
        "started",
        "unsendable",
        "where",
    )

    def __init__(self, delivery: Delivery, headers: Headers) -> None:
        self.delivery = delivery
        self.headers = headers
        self.event: Event | None = None
        self.handler: Handler | None = None
        self.payload: Any = None
        self.standing: Standing = UNSEEN
        self.decision: Decision | None = None
        self.context: Context | None = None
        self.holder = ""
        self.in_hand = False
        self.key = ""
        self.epoch = 0
        self.sequence = 0
        self.held_until_ms = 0
        self.started = False
        self.unsendable = False
        self.where = ""
        self.passed: asyncio.Event | None = None
