"""Retry policy: decides, and neither sleeps nor publishes."""

from __future__ import annotations

import math

import msgspec

from fleet.core.backoff import Uniform
from fleet.core.decision import Decision, Fail, Postpone, Retry
from fleet.core.errors import NotNowError, PermanentError, RetryableError
from fleet.core.failure import classify, describe

_TRANSIENT = frozenset({"network", "state", "resource"})


class RetryPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often and how late a failed delivery is tried again.

    `attempts` counts the first one too. The delay before attempt n+1 is drawn uniformly between 0
    and min(`cap`, `base`·2^(n-1)) seconds: full jitter, as in Marc Brooker, "Exponential Backoff
    And Jitter" (AWS, 2015). What is postponed longer than `max_age` seconds after its event's
    `ts` fails. Raises ValueError for fewer attempts than one, or times that are none.
    """

    attempts: int = 4
    base: float = 2.0
    cap: float = 30.0
    max_age: float = 86_400.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"a policy has at least 1 attempt, not {self.attempts}")
        for name in ("base", "cap", "max_age"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is 0 or more seconds, not {getattr(self, name)}")

    def ceiling(self, attempt: int) -> float:
        """The longest delay in seconds after `attempt` (from 1)."""
        # 2**63 is beyond any cap; the exponent is bounded so that it cannot overflow.
        return min(self.cap, self.base * 2.0 ** min(attempt - 1, 63))

    def decide(self, error: Exception, *, attempt: int, age: float, uniform: Uniform) -> Decision:
        """Retry, Postpone or Fail, for `error` in `attempt` (from 1), `age` seconds after `ts`."""
        failure = describe(error)
        if isinstance(error, NotNowError):
            if age > self.max_age:
                return Fail(failure)
            return Postpone(_asked(error) or uniform(0, self.cap), failure.message)
        if not _retryable(error) or attempt >= self.attempts:
            return Fail(failure)
        asked = _asked(error)
        return Retry(uniform(0, self.ceiling(attempt)) if asked is None else asked, failure)


def _retryable(error: Exception) -> bool:
    if isinstance(error, PermanentError):
        return False
    return isinstance(error, RetryableError) or classify(error) in _TRANSIENT


def _asked(error: Exception) -> float | None:
    """The delay that the other side asked for; what is no delay reads as none."""
    asked = error.retry_after if isinstance(error, RetryableError) else None
    return asked if asked is not None and 0 <= asked < math.inf else None


NEVER = RetryPolicy(attempts=1)
"""For lanes: a tick that failed is not worth a second attempt."""
