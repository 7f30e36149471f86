"""A circuit breaker as a value: calls fail, it opens, it lets one probe through, it closes.

    closed ──5 failures in a row──► open ──60 s──► half open ──the probe succeeds──► closed
                                      ▲                │
                                      └──the probe fails

After Michael Nygard, "Release It!". Time is an argument; who keeps the value decides how many
processes share it.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from fleet.core.errors import LogicError

BreakerState: TypeAlias = Literal["closed", "half_open", "open"]


class BreakerPolicy(msgspec.Struct, frozen=True):
    """When a breaker opens, and how it closes again; times in milliseconds.

    `failures` in a row open it for `open_ms`. Then one probe at a time may go; a prober that says
    nothing for `probe_ms` is given up, and another may. Raises LogicError for less than 1 of any.
    """

    failures: int = 5
    open_ms: int = 60_000
    probe_ms: int = 30_000

    def __post_init__(self) -> None:
        if min(self.failures, self.open_ms, self.probe_ms) < 1:
            raise LogicError("a breaker's policy is of positive numbers")


class Breaker(msgspec.Struct, frozen=True, gc=False):
    """What is known of the other side; `opened_ms` is 0 while it is closed.

    `failures` are those in a row. `prober` has the one probe until `probe_until_ms`.
    """

    failures: int = 0
    opened_ms: int = 0
    prober: str = ""
    probe_until_ms: int = 0


class Turn(msgspec.Struct, frozen=True, gc=False):
    """Whether a call may go: with `wait_ms` 0 it may, else it comes back after so long.

    `breaker` is what must be kept before the call goes.
    """

    breaker: Breaker
    wait_ms: int = 0


CLOSED = Breaker()


def state(breaker: Breaker, policy: BreakerPolicy, now_ms: int) -> BreakerState:
    """closed, open, or half_open: long enough open for a probe."""
    if not breaker.opened_ms:
        return "closed"
    return "open" if now_ms < breaker.opened_ms + policy.open_ms else "half_open"


def ask(breaker: Breaker, caller: str, policy: BreakerPolicy, now_ms: int) -> Turn:
    """The turn of `caller`, which names one call and no other."""
    match state(breaker, policy, now_ms):
        case "closed":
            return Turn(breaker)
        case "open":
            return Turn(breaker, breaker.opened_ms + policy.open_ms - now_ms)
    if breaker.prober not in ("", caller) and now_ms < breaker.probe_until_ms:
        return Turn(breaker, breaker.probe_until_ms - now_ms)
    until_ms = now_ms + policy.probe_ms
    return Turn(msgspec.structs.replace(breaker, prober=caller, probe_until_ms=until_ms))


def succeeded(breaker: Breaker, caller: str) -> Breaker:
    """The breaker after an answer; while it is open, only the prober's counts."""
    if breaker.opened_ms and breaker.prober != caller:
        return breaker
    return CLOSED


def failed(breaker: Breaker, caller: str, policy: BreakerPolicy, now_ms: int) -> Breaker:
    """The breaker after a failure; while it is open, only the prober's counts."""
    if breaker.opened_ms and breaker.prober != caller:
        return breaker
    failures = breaker.failures + 1
    if breaker.opened_ms or failures >= policy.failures:
        return Breaker(failures=failures, opened_ms=max(1, now_ms))
    return Breaker(failures=failures)


def withdrawn(breaker: Breaker, caller: str) -> Breaker:
    """The breaker after a call that says nothing about the other side: its probe is free again."""
    if breaker.prober != caller:
        return breaker
    return msgspec.structs.replace(breaker, prober="", probe_until_ms=0)
