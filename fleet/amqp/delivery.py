"""A delivery: one message in our hands, settled once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fleet.amqp.acks import AckLine
from fleet.core.errors import LogicError


class Origin(NamedTuple):
    """Where deliveries come from: a queue, which may be a lane."""

    queue: str
    is_lane: bool


class Delivery:
    """A message from a work queue or a lane, not yet settled.

    `body` and `headers` are as the broker handed them over, unchecked. `redelivered` says that
    somebody had it before.
    """

    __slots__ = ("_line", "_settled", "body", "headers", "origin", "redelivered", "tag")

    def __init__(
        self,
        line: AckLine,
        tag: int,
        origin: Origin,
        body: bytes,
        headers: Mapping[str, Any],
        *,
        redelivered: bool,
    ) -> None:
        self._line = line
        self._settled = False
        self.tag = tag
        self.origin = origin
        self.body = body
        self.headers = headers
        self.redelivered = redelivered

    @property
    def is_ours(self) -> bool:
        """Whether it can still be settled; after a lost channel it comes again by itself."""
        return self._line.is_open

    @property
    def line(self) -> AckLine:
        """The acks of the channel it came by."""
        return self._line

    def ack(self) -> None:
        """It is done with. Raises LogicError where it was settled before.

        On a lost channel nothing happens: the message comes again, and the journal knows it.
        """
        self._settle()
        self._line.ack(self.tag)

    def give_back(self) -> None:
        """Hand it back to the queue, untouched. Raises LogicError where it was settled before."""
        self._settle()
        self._line.nack(self.tag)

    def dead_letter(self) -> None:
        """Let the broker move it to the failed queue. Raises LogicError if it was settled before.

        For what we cannot publish there ourselves; it arrives without our reason.
        """
        self._settle()
        self._line.nack(self.tag, requeue=False)

    def _settle(self) -> None:
        if self._settled:
            raise LogicError(f"delivery {self.tag} of {self.origin.queue} is settled twice")
        self._settled = True
