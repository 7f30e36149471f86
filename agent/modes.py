"""Modes: what the agent may do, by how it and the world are. Pure.

    full ⊃ read_only (close only) ⊃ observation (no trading) ⊃ shutdown (everything closed)

Down at once; up after the world has been well for a while. Only an operator ends a shutdown.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal, TypeAlias

import msgspec

from fleet.core.breaker import BreakerState

Mode: TypeAlias = Literal["full", "read_only", "observation", "shutdown"]
MODES: Final[tuple[Mode, ...]] = ("full", "read_only", "observation", "shutdown")
"""From the freest down."""

NO_BALANCE: Final = "the balance is below MIN_BALANCE_USDC"
DRAWDOWN: Final = "the drawdown is over MAX_DRAWDOWN"
NO_PRICES: Final = "no price has come for longer than MAX_FEED_AGE_S"
NO_WRITES: Final = "the venue's write API fails"
OPERATOR: Final = "an operator said so"
WELL: Final = ""


class Health(msgspec.Struct, frozen=True):
    """How things are; what is not known (None) is not held against anybody."""

    balance: Decimal | None = None
    drawdown: Decimal = Decimal(0)
    feed_age_s: float | None = None
    write_api: BreakerState = "closed"


class Limits(msgspec.Struct, frozen=True):
    """Where a mode ends. What health allowed for `steady_s` seconds on end the mode goes up to."""

    min_balance: Decimal = Decimal(1)
    max_drawdown: Decimal = Decimal("0.2")
    max_feed_age_s: float = 60.0
    steady_s: float = 10.0


class Standing(msgspec.Struct, frozen=True):
    """The mode since `since_ms`, and why.

    `better_ms` is since when a freer one would do, 0 where none would; `better` is the least free
    of those since then, and `better_why` what forbade more. No mode is freer than `ceiling`, which
    an operator set, with a note.
    """

    mode: Mode = "full"
    reason: str = WELL
    since_ms: int = 0
    better_ms: int = 0
    better: Mode = "full"
    better_why: str = WELL
    ceiling: Mode = "full"
    operator: str = ""
    note: str = ""


def diagnose(health: Health, limits: Limits) -> tuple[Mode, str]:
    """The freest mode that this health allows, and what forbids more."""
    if health.balance is not None and health.balance < limits.min_balance:
        return "shutdown", NO_BALANCE
    if health.drawdown > limits.max_drawdown:
        return "shutdown", DRAWDOWN
    if health.feed_age_s is not None and health.feed_age_s > limits.max_feed_age_s:
        return "observation", NO_PRICES
    if health.write_api != "closed":
        return "read_only", NO_WRITES
    return "full", WELL


def step(now: Standing, health: Health, limits: Limits, now_ms: int) -> Standing:
    """The standing that follows from this health; the same one where nothing changed."""
    if now.mode == "shutdown":
        return now
    mode, reason = diagnose(health, limits)
    # Also where both say the same: an operator's word lets no probe through.
    if now.ceiling != "full" and not is_below(mode, now.ceiling):
        mode, reason = now.ceiling, OPERATOR
    if is_below(mode, now.mode):
        return _moved(now, mode, reason, now_ms)
    if mode == now.mode:
        return msgspec.structs.replace(_resting(now), reason=reason)
    if not now.better_ms or is_below(mode, now.better):
        since_ms = now.better_ms or max(1, now_ms)
        now = msgspec.structs.replace(now, better_ms=since_ms, better=mode, better_why=reason)
    if now_ms - now.better_ms < limits.steady_s * 1000:
        return now
    return _moved(now, now.better, now.better_why, now_ms)


def ordered(now: Standing, mode: Mode, operator: str, note: str, now_ms: int) -> Standing:
    """The standing after an operator's word: this mode at once, and none that is freer.

    Health may still bring it lower, at the next look; "full" takes every ceiling away.
    """
    said = msgspec.structs.replace(now, ceiling=mode, operator=operator, note=note)
    return _moved(said, mode, WELL if mode == "full" else OPERATOR, now_ms)


def is_below(mode: Mode, other: Mode) -> bool:
    """Whether `mode` allows less than `other`."""
    return MODES.index(mode) > MODES.index(other)


def may_close(mode: Mode) -> bool:
    """Whether an order may close a position; in a shutdown others do that."""
    return mode in ("full", "read_only")


def _moved(now: Standing, mode: Mode, reason: str, now_ms: int) -> Standing:
    return msgspec.structs.replace(_resting(now), mode=mode, reason=reason, since_ms=now_ms)


def _resting(now: Standing) -> Standing:
    return msgspec.structs.replace(now, better_ms=0, better="full", better_why=WELL)
