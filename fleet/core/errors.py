"""The errors of the fleet, split by who must act.

FleetError
├── OperatorError          a person must change something: stop, exit code 2
│   ├── SettingsError
│   ├── BrokerError
│   ├── TopologyError
│   └── StoreError
├── RetryableError         time will mend it: retry with a delay
│   ├── NetworkError
│   ├── ApiError
│   ├── StateError
│   ├── ResourceError
│   └── NotNowError
├── PermanentError         nobody can mend it by waiting: fail, park, let a person look
│   ├── DataError
│   │   └── EnvelopeError
│   ├── LogicError
│   └── RefusedError
└── PublishError           the broker did not take a message, or did not say
    ├── PublishNacked
    ├── PublishReturned
    └── PublishUnknown

A class docstring is the default message: one text for the reader, the log and the docs.
"""

from __future__ import annotations

from typing import ClassVar


class FleetError(Exception):
    """Something in the fleet went wrong."""

    error_class: ClassVar[str] = "logic"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])


class OperatorError(FleetError):
    """The fleet cannot go on until a person changes something."""


class SettingsError(OperatorError):
    """A setting is missing or wrong."""


class BrokerError(OperatorError):
    """The broker cannot be reached, or refuses."""

    error_class = "network"


class TopologyError(OperatorError):
    """The broker's layout is not the planned one."""


class StoreError(OperatorError):
    """The store cannot be opened or used."""

    error_class = "state"


class RetryableError(FleetError):
    """It failed for now; a later attempt may succeed.

    `retry_after` is the delay in seconds that the other side asked for, if it did.
    """

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NetworkError(RetryableError):
    """The network failed: name, connection, TLS or timeout."""

    error_class = "network"


class ApiError(RetryableError):
    """The other side answered with 429 or a server error."""

    error_class = "api"


class StateError(RetryableError):
    """What we know is stale or locked; synchronise and try again."""

    error_class = "state"


class ResourceError(RetryableError):
    """Memory, disk or another resource of this process is at its limit."""

    error_class = "resource"


class NotNowError(RetryableError):
    """Later, without counting an attempt: a breaker is open, or a limit is reached."""

    error_class = "api"


class PermanentError(FleetError):
    """It will fail again however often it is tried."""


class DataError(PermanentError):
    """The data cannot be used."""

    error_class = "data"


class EnvelopeError(DataError):
    """The bytes are no valid event envelope."""


class LogicError(PermanentError):
    """The code or its arguments are wrong."""


class RefusedError(PermanentError):
    """The other side understood and refused."""

    error_class = "api"


class PublishError(FleetError):
    """The broker did not confirm a message."""

    error_class = "network"


class PublishNacked(PublishError):  # noqa: N818 - reads as the event it is
    """The broker refused the message: a queue it goes to is full."""


class PublishReturned(PublishError):  # noqa: N818 - reads as the event it is
    """The broker found no queue for the message."""


class PublishUnknown(PublishError):  # noqa: N818 - reads as the event it is
    """The broker did not answer in time: the message may or may not have arrived."""
