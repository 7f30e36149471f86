"""A delivery: one message in our hands, settled once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pamqp.decode import field_table

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

    __slots__ = ("_headers", "_line", "_settled", "_table", "body", "origin", "redelivered", "tag")

    def __init__(
        self,
        line: AckLine,
        tag: int,
        origin: Origin,
        body: bytes,
        table: bytes,
        *,
        redelivered: bool,
    ) -> None:
        self._line = line
        self._settled = False
        self.tag = tag
        self.origin = origin
        self.body = body
        self._table = table
        self._headers: Mapping[str, Any] | None = None
        self.redelivered = redelivered

    @property
    def headers(self) -> Mapping[str, Any]:
        """Its headers; read from the wire's bytes when they are first asked for.

        Empty where they cannot be read: a client may write what the decoder does not know.
        """
        if self._headers is None:
            self._headers = _read(self._table)
        return self._headers

    @property
    def is_first(self) -> bool:
        """Whether no header can say that it was tried, replayed or allowed to be stale."""
        return b"x-re" not in self._table and b"x-al" not in self._table

    @property
    def is_suspect(self) -> bool:
        """Whether it may have killed a worker: it came back, and not only because it was nacked.

        From 4.3 on the broker says which; before, every return counts as one.
        """
        if not self.redelivered:
            return False
        return b"x-delivery-count" in self._table or b"x-acquired-count" not in self._table

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


def _read(table: bytes) -> Mapping[str, Any]:
    try:
        return field_table(table)[1] if table else {}
    except Exception:  # noqa: BLE001 - years beyond 9999, bytes that are no text, nesting
        return {}
