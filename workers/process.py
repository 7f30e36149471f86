"""One delivery, from the handler to a decision: the whole contract on one screen."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from typing import Any, cast

from fleet.core.decision import Ack, Decision, Expire, Fail, Postpone, Retry
from fleet.core.errors import LogicError, NotNowError, RefusedError
from fleet.core.events import Event
from fleet.core.failure import failure
from workers.context import Context, Effecting
from workers.job import Job
from workers.middleware import Call
from workers.registry import Handler, Result

DONE = Ack()
MIN_WAIT_S, MAX_WAIT_S = 0.25, 1.0
"""How long to wait for an effect in other hands: they mostly finish long before their hold ends."""


async def process(job: Job, context: Context, call: Call) -> Decision:
    """What to do with `job` after its handler had it. Raises only on cancellation.

    `call` is the handler with the middlewares around it. An exception of the handler becomes a
    decision by its retry policy; an effect whose outcome is not known is asked about first.
    """
    handler, event = cast("Handler", job.handler), cast("Event", job.event)
    try:
        if context.effect is not None:
            known = await _known(job, handler, context)
            if known is not None:
                return known
        result = call(handler, context, job.payload)
        if handler.is_async or not (result is None or isinstance(result, Decision)):
            result = await _within(handler.deadline, cast("Awaitable[Result]", result))
        decision = _checked(handler, result)
        return _bounded(decision, handler, (context.now_ms - event.ts) / 1000)
    except Exception as error:  # noqa: BLE001 - whatever a handler raises, its delivery is settled
        if context.effect is not None and isinstance(error, RefusedError | NotNowError):
            context.effect.not_done()
        age = (context.now_ms - event.ts) / 1000
        return handler.retry.decide(
            error, attempt=job.headers.attempt, age=age, uniform=random.uniform
        )


def judge(job: Job, now_ms: int) -> Decision | None:
    """The decision that the store's knowledge makes without the handler, if it does."""
    standing = job.standing
    if standing.seen is not None:
        return Ack(skipped=f"seen: {standing.seen}")
    effect = standing.effect
    if effect is None or standing.fresh:
        return None
    if standing.held:
        left = (effect.held_until_ms - now_ms) / 1000
        return Postpone(max(MIN_WAIT_S, min(left, MAX_WAIT_S)), "in other hands")
    if effect.state in {"done", "failed"}:
        return Ack(skipped=f"effect {effect.key} is {effect.state} already")
    return None


def in_lane(decision: Decision) -> Decision:
    """The decision as a lane can carry it out: nothing comes later, behind newer events."""
    match decision:
        case Retry(failure=reason):
            return Fail(reason)
        case Postpone(reason=reason):
            return Fail(failure("state", "PostponedInLane", reason or "a lane does not wait"))
        case _:
            return decision


def expiry(job: Job, now_ms: int) -> Expire | None:
    """The decision for an event that is too old for its handler; an operator may allow it."""
    handler, event = cast("Handler", job.handler), cast("Event", job.event)
    age = (now_ms - event.ts) / 1000
    if handler.max_age is None or age <= handler.max_age or job.headers.allow_stale:
        return None
    return Expire(f"{age:.1f} s old; {handler.max_age:g} s are allowed")


def effecting(job: Job) -> Effecting | None:
    """What the handler is told of its effect; None for a handler without one."""
    effect = job.standing.effect
    if effect is None:
        return None
    return Effecting(effect.key, None if job.standing.fresh else effect, job.holder)


async def _known(job: Job, handler: Handler, context: Context) -> Decision | None:
    """Ask about an effect that an earlier attempt may have had; None: it certainly had none."""
    effect = context.effecting
    if effect.before is None:
        return None
    if handler.unknown is None:
        return Fail(failure("state", "UnknownOutcome", "an earlier attempt may have succeeded"))
    answer = handler.unknown(context, job.payload)
    if not (answer is None or isinstance(answer, Decision)):
        answer = await _within(handler.deadline, answer)
    if answer is None:
        effect.before = None
    return None if answer is None else _checked(handler, answer)


async def _within(deadline: float, result: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(deadline):
            return await result
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"no answer within {deadline:g} s") from error


def _bounded(decision: Decision, handler: Handler, age: float) -> Decision:
    """A postponement does not count as an attempt, so its end is the event's age."""
    if isinstance(decision, Postpone) and age > handler.retry.max_age:
        return Fail(failure("state", "PostponedTooLong", decision.reason or "postponed too long"))
    return decision


def _checked(handler: Handler, result: Any) -> Decision:
    if result is None:
        return DONE
    if isinstance(result, Decision):
        return result
    raise LogicError(f"{handler.name} returned {type(result).__name__}, which is no decision")
