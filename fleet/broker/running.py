"""What every broker we run or are given offers."""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

from fleet.broker.handshake import Address, check
from fleet.broker.management import Management
from fleet.core.errors import BrokerError

POLL = 0.1  # seconds
ANSWER = 2.0  # seconds to accept a connection


class RunningBroker(ABC):
    """A broker that can be used now, and is stopped at the end of its `with` block.

    `amqp_url` carries the credentials; `management_url` (None where there is none) does not.
    `version` is RabbitMQ's, as "4.0.5"; `kind` is given, docker, local or testcontainers.
    """

    kind: str
    amqp_url: str
    management_url: str | None
    version: str

    @abstractmethod
    def stop(self) -> None:
        """End it and leave nothing behind; a second call does nothing."""

    @abstractmethod
    def kill(self) -> None:
        """Make it crash: as if the power went. Returns once it is down."""

    @abstractmethod
    def restart(self) -> None:
        """Start it again, killed or not, on the same data and addresses; it serves on return."""

    def alive(self) -> bool:
        """Whether somebody still answers at its address."""
        at = Address.parse(self.amqp_url)
        try:
            with socket.create_connection((at.host, at.port), timeout=ANSWER):
                return True
        except OSError:
            return False

    def management(self) -> Management:
        """A client of its management API; raises BrokerError where it has none."""
        if self.management_url is None:
            raise BrokerError("This broker has no management API: set MANAGEMENT_URL.")
        return Management(self.management_url, self.amqp_url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def await_ready(
    amqp_url: str, management: Management, timeout: float, alive: Callable[[], bool]
) -> str:
    """Wait until AMQP and the management API both serve; RabbitMQ's version.

    Raises BrokerError after `timeout` seconds, or as soon as `alive` says no.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            version = check(amqp_url, timeout=5.0)
            if management.get("overview") is not None:
                return version
        except BrokerError as error:
            reason = error
        if not alive():
            raise BrokerError("RabbitMQ ended while it was starting.")
        if time.monotonic() > deadline:
            raise BrokerError(f"RabbitMQ did not start within {timeout:.0f} s: {reason}")
        time.sleep(POLL)
