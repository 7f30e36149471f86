"""Retrying: full jitter, a bounded count, and what never counts."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fleet.core.backoff import backoff
from fleet.core.decision import Ack, Decision, Expire, Fail, Postpone, Retry
from fleet.core.errors import (
    ApiError,
    DataError,
    LogicError,
    NetworkError,
    NotNowError,
    RefusedError,
    ResourceError,
    StateError,
)
from fleet.core.failure import failure
from fleet.core.retry import NEVER, RetryPolicy

seconds = st.floats(0, 10_000)
policies = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 30),
    base=seconds,
    cap=seconds,
    max_age=st.floats(1, 100_000),
)
seeds = st.integers(0, 2**32).map(random.Random)
transient = st.sampled_from([NetworkError, ApiError, StateError, ResourceError, OSError])
permanent = st.sampled_from([DataError, LogicError, RefusedError, ZeroDivisionError, KeyError])


class UnreachableError(DataError):
    """Data that will never be had, over a network."""

    error_class = "network"


@given(policies, transient, st.integers(1, 30), seconds, seeds)
def test_full_jitter(
    policy: RetryPolicy, kind: type[Exception], attempt: int, age: float, dice: random.Random
):
    """What time may mend is retried within [0, min(cap, base·2^(n-1))], to the last attempt."""
    decision = policy.decide(kind("x"), attempt=attempt, age=age, uniform=dice.uniform)
    if attempt >= policy.attempts:
        assert isinstance(decision, Fail)
    else:
        assert isinstance(decision, Retry)
        assert 0 <= decision.delay <= min(policy.cap, policy.base * 2 ** (attempt - 1))


def test_the_jitter_is_full():
    """A delay is drawn from 0 to a ceiling that doubles up to the cap."""
    policy = RetryPolicy(attempts=9, base=2.0, cap=30.0)
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    for attempt in range(1, 8):
        policy.decide(NetworkError(), attempt=attempt, age=0, uniform=uniform)
    assert asked == [(0, 2), (0, 4), (0, 8), (0, 16), (0, 30), (0, 30), (0, 30)]


@given(st.integers(1, 2**31))
def test_no_attempt_overflows(attempt: int):
    """The ceiling of any attempt is at most the cap."""
    assert 0 <= RetryPolicy().ceiling(attempt) <= 30


@given(policies, transient, seeds)
def test_attempts_are_bounded(policy: RetryPolicy, kind: type[Exception], dice: random.Random):
    """A delivery that always fails is failed in exactly its last attempt."""
    attempt = 1
    while isinstance(policy.decide(kind("x"), attempt=attempt, age=0, uniform=dice.uniform), Retry):
        attempt += 1
    assert attempt == policy.attempts


@given(policies, permanent, st.integers(1, 30), seeds)
def test_what_waiting_cannot_mend(
    policy: RetryPolicy, kind: type[Exception], attempt: int, dice: random.Random
):
    """A permanent error, and a bug, fail in the first attempt."""
    decision = policy.decide(kind("x"), attempt=attempt, age=0, uniform=dice.uniform)
    assert isinstance(decision, Fail)
    assert decision.failure.error_type == kind.__name__


def test_permanent_is_permanent_in_every_class():
    """Who says that it is permanent is believed, whatever class it gives itself."""
    decision = RetryPolicy().decide(UnreachableError(), attempt=1, age=0, uniform=random.uniform)
    assert isinstance(decision, Fail)


@given(policies, seconds, seeds)
def test_retry_after_is_obeyed(policy: RetryPolicy, asked: float, dice: random.Random):
    """The delay that the other side asked for is taken as it is, also over the cap."""
    assume(policy.attempts > 1)
    error = ApiError(retry_after=asked)
    decision = policy.decide(error, attempt=1, age=0, uniform=dice.uniform)
    assert isinstance(decision, Retry)
    assert decision.delay == asked


@pytest.mark.parametrize("asked", [-1.0, math.inf, math.nan])
@pytest.mark.parametrize("kind", [ApiError, NotNowError])
def test_retry_after_that_is_no_delay(kind: type[ApiError | NotNowError], asked: float):
    """A negative or endless Retry-After reads as none: our own delay is taken."""
    error = kind(retry_after=asked)
    decision = RetryPolicy().decide(error, attempt=1, age=0, uniform=lambda _, high: high)
    assert isinstance(decision, Retry | Postpone)
    assert decision.delay in {2.0, 30.0}


@given(policies, st.integers(1, 10**6), st.floats(0, 200_000), seeds)
def test_not_now_never_counts(policy: RetryPolicy, attempt: int, age: float, dice: random.Random):
    """Not now is postponed in whatever attempt; its end is the event's age."""
    decision = policy.decide(NotNowError(), attempt=attempt, age=age, uniform=dice.uniform)
    if age > policy.max_age:
        assert isinstance(decision, Fail)
    else:
        assert isinstance(decision, Postpone)
        assert 0 <= decision.delay <= policy.cap


def test_lanes_never_retry():
    """The policy of lanes has one attempt."""
    assert isinstance(NEVER.decide(OSError(), attempt=1, age=0, uniform=random.uniform), Fail)


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"base": -1.0}, {"cap": math.inf}, {"max_age": math.nan}]
)
def test_a_policy_that_is_none(wrong: dict[str, float]):
    """A policy without an attempt, or with times that are none, is refused at once."""
    with pytest.raises(ValueError, match=next(iter(wrong)).rstrip("s")):
        RetryPolicy(**wrong)  # type: ignore[arg-type] # that is the point


@given(st.floats(0.001, 60), st.floats(0.001, 600), seeds, st.integers(1, 40))
def test_backoff(first: float, cap: float, dice: random.Random, count: int):
    """Each delay to reconnect lies in the upper half of first, 2·first, … cap."""
    assume(first <= cap)
    for number, delay in zip(range(count), backoff(dice.uniform, first=first, cap=cap)):  # noqa: B905 - endless
        top = min(cap, first * 2**number)
        assert top / 2 <= delay <= top


REASON = failure("data", "Odd", "it is odd")


@pytest.mark.parametrize(
    "decision", [Ack("seen"), Retry(1.0, REASON), Postpone(1.0), Fail(REASON), Expire("old")]
)
def test_a_decision_is_a_value(decision: Decision):
    """Decisions are frozen, equal by content and usable as keys."""
    for name in decision.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(decision, name, None)
    again = type(decision)(*(getattr(decision, name) for name in decision.__struct_fields__))
    assert {decision: 1}[again] == 1


@pytest.mark.parametrize("delay", [-0.1, math.inf, math.nan])
def test_a_delay_that_is_none(delay: float):
    """A handler that asks for an impossible delay hears of it where it asks."""
    with pytest.raises(ValueError, match="delay"):
        Retry(delay, REASON)
    with pytest.raises(ValueError, match="delay"):
        Postpone(delay)
