"""What to do with a delivery: pure values. Carrying one out is `workers.settle`'s business."""

from __future__ import annotations

import msgspec

from fleet.core.failure import Failure


class Ack(msgspec.Struct, frozen=True, gc=False):
    """It is done; or, with `skipped`, there was nothing to do and that is why."""

    skipped: str = ""


class Retry(msgspec.Struct, frozen=True, gc=False):
    """Try again after `delay` seconds; counts an attempt."""

    delay: float
    failure: Failure


class Postpone(msgspec.Struct, frozen=True, gc=False):
    """Not now: come back after `delay` seconds; does not count as an attempt."""

    delay: float
    reason: str = ""


class Fail(msgspec.Struct, frozen=True, gc=False):
    """It will not succeed by itself: park it in the failed queue, with the reason."""

    failure: Failure


class Expire(msgspec.Struct, frozen=True, gc=False):
    """It is too old to act on."""

    reason: str = ""


Decision = Ack | Retry | Postpone | Fail | Expire
