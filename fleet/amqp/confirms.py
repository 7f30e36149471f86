"""A channel on which every message is answered once: confirmed, refused, returned or unknown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import uuid4

import structlog
from aiormq import Channel
from aiormq.abc import AbstractConnection, ConfirmationFrameType
from pamqp import commands
from pamqp.header import ContentHeader

from fleet.amqp import frames
from fleet.core.errors import PublishError, PublishNacked, PublishReturned, PublishUnknown

Settled = Callable[[PublishError | None], None]
"""Told once what became of a message; None means confirmed. It must not raise."""

Release = Callable[[int, int], None]
"""Told how many messages and how many bytes are no longer in flight."""

log: Final = structlog.get_logger("fleet.amqp")


class ConfirmChannel(Channel):
    """Matches the broker's answers to messages by delivery tag, with no task and no lock each.

    aiormq's own matching of a returned message goes by message id alone; here the id is made of
    a prefix of this channel and the tag, so that it is unique for each attempt ever made.
    """

    def __init__(self, connection: AbstractConnection, number: int, release: Release) -> None:
        super().__init__(connection, number, publisher_confirms=True)
        self._frame_max = connection.connection_tune.frame_max
        self._prefix = f"{uuid4().hex}-"
        self._release = release
        self._waiting: dict[int, tuple[Settled, float, int]] = {}
        self._answered = 0  # every tag up to this one has its answer

    def frames_of(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        headers: Mapping[str, Any],
        *,
        now_s: int,
        expiration_ms: int | None,
        settled: Settled,
        deadline: float,
    ) -> bytes:
        """The next message's bytes, to be written in this order; `settled` waits for its answer.

        Raises DataError where the message cannot be written; then it took no delivery tag.
        """
        tag = self.delivery_tag + 1
        octets = frames.message(
            self.number,
            self._frame_max,
            exchange=exchange,
            routing_key=routing_key,
            body=body,
            headers=headers,
            message_id=self._prefix + str(tag),
            now_s=now_s,
            expiration_ms=expiration_ms,
        )
        self.delivery_tag = tag
        self._waiting[tag] = (settled, deadline, len(octets))
        return octets

    def expire(self, now: float) -> None:
        """Give up on what should have been answered by `now`; a late answer is ignored."""
        late = [tag for tag, (_, deadline, _) in self._waiting.items() if deadline <= now]
        self._settle(late, PublishUnknown("The broker did not confirm in time."))

    def abandon(self) -> None:
        """Give up on everything that waits: the channel is gone."""
        self._settle(list(self._waiting), PublishUnknown("The connection was lost in between."))

    def _settle(self, tags: list[int] | range, error: PublishError | None) -> None:
        count = size = 0
        for tag in tags:
            waiting = self._waiting.pop(tag, None)
            if waiting is None:
                continue
            count += 1
            size += waiting[2]
            try:
                waiting[0](error)
            except Exception:
                log.exception("a publisher's callback failed")
        if count:
            self._release(count, size)

    async def _on_confirm_frame(self, frame: ConfirmationFrameType) -> None:
        tag = frame.delivery_tag or 0
        error = None if isinstance(frame, commands.Basic.Ack) else PublishNacked()
        if getattr(frame, "multiple", False):
            self._settle(range(self._answered + 1, tag + 1), error)
            self._answered = max(self._answered, tag)
        else:
            self._settle(range(tag, tag + 1), error)

    async def _on_return_frame(self, frame: commands.Basic.Return) -> None:
        header = await self._get_frame()
        if not isinstance(header, ContentHeader):
            raise TypeError(f"a header should follow a return, not {header!r}")
        message = await self._read_content(frame, header)
        prefix, _, tag = (message.header.properties.message_id or "").rpartition("-")
        if prefix + "-" != self._prefix:
            log.error("a returned message is not ours", exchange=frame.exchange)
            return
        reason = f"No queue takes {frame.routing_key!r} from {frame.exchange!r}."
        self._settle([int(tag)], PublishReturned(reason))


async def open_channel(
    connection: AbstractConnection, release: Release, timeout_s: float
) -> ConfirmChannel:
    """A new channel with confirms on `connection`, under the lowest free number."""
    number = next(number for number in range(1, 1 << 16) if number not in connection.channels)
    channel = ConfirmChannel(connection, number, release)
    connection.channels[number] = channel
    await channel.open(timeout=timeout_s)
    return channel
