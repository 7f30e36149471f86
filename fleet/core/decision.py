"""What to do with a delivery: pure values. Carrying one out is `workers.settle`'s business."""

from __future__ import annotations

import math

import msgspec

from fleet.core.failure import Failure


class Ack(msgspec.Struct, frozen=True, gc=False):
    """It is done; or, with `skipped`, there was nothing to do and that is why."""

    skipped: str = ""


class Retry(msgspec.Struct, frozen=True, gc=False):
    """Try again after `delay` seconds; counts an attempt.

    Raises ValueError where the delay is negative, infinite or no number.
    """

    delay: float
    failure: Failure

    def __post_init__(self) -> None:
        _check_delay(self.delay)


class Postpone(msgspec.Struct, frozen=True, gc=False):
    """Not now: come back after `delay` seconds; does not count as an attempt.

    Raises ValueError where the delay is negative, infinite or no number.
    """

    delay: float
    reason: str = ""

    def __post_init__(self) -> None:
        _check_delay(self.delay)


class Fail(msgspec.Struct, frozen=True, gc=False):
    """It will not succeed by itself: park it in the failed queue, with the reason."""

    failure: Failure


class Expire(msgspec.Struct, frozen=True, gc=False):
    """It is too old to act on."""

    reason: str = ""


Decision = Ack | Retry | Postpone | Fail | Expire


def _check_delay(delay: float) -> None:
    # The broker takes whole milliseconds; what is no delay must fail where it was made.
    if not 0 <= delay < math.inf:
        raise ValueError(f"a delay is 0 or more seconds, not {delay}")
