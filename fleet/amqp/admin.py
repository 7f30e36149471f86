"""A short-lived connection for declaring and probing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Mapping
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from fleet.amqp.reasons import parse
from fleet.amqp.ring import dial
from fleet.core.errors import BrokerError, TopologyError

Arguments = Mapping[str, str | int | bool]
Kind = Literal["exchange", "queue"]
T = TypeVar("T")

_MENDING: Final = {
    "queue": "run `fleet topology migrate`, which makes that queue anew",
    "exchange": "delete that exchange while nothing is published",
}


class Inequivalent(TopologyError):  # noqa: N818 - the broker's own word
    """The broker has this object with other values.

    `argument` is the first that differs, `planned` and `found` are its values as the broker words
    them, "none" where there is none.
    """

    def __init__(self, kind: Kind, name: str, argument: str, planned: str, found: str) -> None:
        self.argument, self.planned, self.found = argument, planned, found
        super().__init__(
            f"The {kind} {name} has {argument} = {found} on the broker, where {planned} is planned;"
            f" {_MENDING[kind]}, or plan {found} and apply again."
        )


class Refused(BrokerError):  # noqa: N818 - reads as what it is
    """The broker's user may not do this."""


class Admin:
    """Declares and probes, one call at a time; every failure is one sentence for the operator."""

    def __init__(self, url: str, connection: AbstractConnection, timeout_s: float) -> None:
        self._url = url
        self._connection = connection
        self._timeout_s = timeout_s
        self._opened: AbstractChannel | None = None

    @classmethod
    async def open(cls, url: str, *, timeout_s: float = 10.0) -> Self:
        """Connect within `timeout_s`; raises BrokerError where the broker is not to be had."""
        connection, at = await dial(url, timeout_s)
        return cls(at, connection, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._connection.close()

    async def declare_exchange(self, name: str, kind: str, arguments: Arguments) -> None:
        """Have a durable exchange; raises Inequivalent where it is there but another."""
        channel = await self._channel()
        await self._declare(
            "exchange",
            name,
            channel.exchange_declare(
                name, exchange_type=kind, durable=True, arguments=dict(arguments)
            ),
        )

    async def declare_queue(self, name: str, arguments: Arguments) -> None:
        """Have a durable queue; raises Inequivalent where it is there but another."""
        channel = await self._channel()
        declared = channel.queue_declare(name, durable=True, arguments=dict(arguments))
        await self._declare("queue", name, declared)

    async def bind_exchange(self, name: str, source: str, key: str, arguments: Arguments) -> None:
        """Have a binding from the exchange `source` to the exchange `name`."""
        channel = await self._channel()
        bound = channel.exchange_bind(name, source, key, arguments=dict(arguments))
        await self._call(f"bind the exchange {name} to {source}", bound)

    async def bind_queue(self, name: str, source: str, key: str, arguments: Arguments) -> None:
        """Have a binding from the exchange `source` to the queue `name`."""
        channel = await self._channel()
        bound = channel.queue_bind(name, source, key, arguments=dict(arguments))
        await self._call(f"bind the queue {name} to {source}", bound)

    async def unbind_exchange(self, name: str, source: str, key: str, arguments: Arguments) -> None:
        """Have no such binding between two exchanges."""
        channel = await self._channel()
        unbound = channel.exchange_unbind(name, source, key, arguments=dict(arguments))
        await self._call(f"unbind the exchange {name} from {source}", unbound)

    async def unbind_queue(self, name: str, source: str, key: str, arguments: Arguments) -> None:
        """Have no such binding from the exchange `source` to the queue `name`."""
        channel = await self._channel()
        unbound = channel.queue_unbind(name, source, key, arguments=dict(arguments))
        await self._call(f"unbind the queue {name} from {source}", unbound)

    async def delete_queue(self, name: str) -> None:
        """Have no such queue; whatever is in it goes with it."""
        channel = await self._channel()
        await self._call(f"delete the queue {name}", channel.queue_delete(name))

    async def exists(self, kind: Kind, name: str) -> bool:
        """Whether there is such an exchange or queue; needs no permission to configure it."""
        channel = await self._channel()
        found: Awaitable[Any] = (
            channel.queue_declare(name, passive=True)
            if kind == "queue"
            else channel.exchange_declare(name, passive=True)
        )
        try:
            await self._call(f"look at the {kind} {name}", found)
        except ChannelNotFoundEntity:
            return False
        return True

    async def _declare(self, kind: Kind, name: str, declared: Awaitable[Any]) -> None:
        try:
            await self._call(f"declare the {kind} {name}", declared)
        except ChannelPreconditionFailed as error:
            raise _refusal(kind, name, str(error)) from None

    async def _channel(self) -> AbstractChannel:
        # The broker closes a channel with each refusal, so the next call needs another one.
        if self._opened is None or self._opened.is_closed:
            self._opened = await self._call("open a channel", self._connection.channel())
        return self._opened

    async def _call(self, what: str, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except (ChannelNotFoundEntity, ChannelPreconditionFailed):
            raise
        except ChannelAccessRefused:
            user = _user(self._url)
            raise Refused(f"User {user!r} may not {what}; give it the permission.") from None
        except (AMQPError, OSError, RuntimeError) as error:
            raise BrokerError(f"The broker did not {what}: {_words(error)}.") from None


_INEQUIVALENT: Final = re.compile(
    r"inequivalent arg '(?P<argument>[^']*)'.*received (?P<planned>.*) but current is (?P<found>.*)"
)
_VALUE: Final = re.compile(r"'(?P<value>.*)'")


def _refusal(kind: Kind, name: str, reply: str) -> TopologyError:
    match = _INEQUIVALENT.search(reply)
    if match is None:
        return TopologyError(f"The broker refuses the {kind} {name}: {reply}.")
    planned, found = _value(match["planned"]), _value(match["found"])
    return Inequivalent(kind, name, match["argument"], planned, found)


def _value(words: str) -> str:
    match = _VALUE.search(words.partition(" of type ")[0])
    return match["value"] if match else words


def _user(url: str) -> str:
    return parse(url).user or "guest"


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return " ".join(str(part) for part in error.args) or type(error).__name__
