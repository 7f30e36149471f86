"""One delivery, from the handler to a decision: the whole contract on one screen."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from typing import Any, cast

from fleet.core.decision import Ack, Decision, Expire, Fail, Postpone, Retry
from fleet.core.errors import LogicError, NotNowError, RefusedError, StateError
from fleet.core.events import Event
from fleet.core.failure import Failure, failure, where
from workers.context import Context, Effecting
from workers.job import Job
from workers.middleware import Call
from workers.registry import Handler, Result

DONE = Ack()
MIN_WAIT_S, MAX_WAIT_S = 0.25, 1.0
"""How long to wait for an effect in other hands: they mostly finish long before their hold ends."""


async def process(job: Job, context: Context, call: Call) -> Decision:
    """What to do with `job` after its handler had it. Raises only when the worker is cancelled.

    `call` is the handler with the middlewares around it. An exception of the handler becomes a
    decision by its retry policy; an effect whose outcome is not known is asked about first.
    """
    handler, event = cast("Handler", job.handler), cast("Event", job.event)
    age = (context.now_ms - event.ts) / 1000
    try:
        if context.effect is not None:
            result = await _within(handler.deadline, _ask_then_call(job, context, call))
        else:
            result = call(handler, context, job.payload)
            if handler.is_async or not (result is None or isinstance(result, Decision)):
                result = await _within(handler.deadline, cast("Awaitable[Result]", result))
        return _bounded(_checked(handler, result), handler, age)
    except (Exception, SystemExit, asyncio.CancelledError) as error:  # noqa: BLE001 - all is settled
        _reraise_if_stopped(error)
        job.where = where(error)
        effect = context.effect
        # While an earlier attempt may have been carried out, a refusal says nothing about that.
        if effect and effect.before is None and isinstance(error, RefusedError | NotNowError):
            effect.not_done()
        return handler.retry.decide(
            _as_failure(error), attempt=job.headers.attempt, age=age, uniform=random.uniform
        )


async def _ask_then_call(job: Job, context: Context, call: Call) -> Result:
    """Call the handler of an effect; first ask about one that an earlier attempt may have had."""
    handler, effect = cast("Handler", job.handler), context.effecting
    if effect.before is not None:
        if handler.unknown is None:
            reason = "an earlier attempt may have succeeded"
            return Fail(failure("state", "UnknownOutcome", reason))
        answer = handler.unknown(context, job.payload)
        if not (answer is None or isinstance(answer, Decision)):
            answer = await answer
        if answer is not None:
            return answer
        effect.before = None
        if (expired := expiry(job, context.now_ms)) is not None:
            return expired
    result = call(handler, context, job.payload)
    if result is None or isinstance(result, Decision):
        return result
    return await result


def _reraise_if_stopped(error: BaseException) -> None:
    """Tell the worker's own cancellation from that of something the handler waited for."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error


def _as_failure(error: BaseException) -> Exception:
    if isinstance(error, asyncio.CancelledError):
        return StateError("what the handler waited for was cancelled")
    return error if isinstance(error, Exception) else LogicError("the handler tried to exit")


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
    limit = handler.limit(is_replay=job.headers.replay_count > 0)
    age = (now_ms - event.ts) / 1000
    if limit is None or age <= limit or job.headers.allow_stale:
        return None
    return Expire(f"{age:.1f} s old; {limit:g} s are allowed")


def effecting(job: Job) -> Effecting | None:
    """What the handler is told of its effect; None for a handler without one."""
    effect = job.standing.effect
    if effect is None:
        return None
    return Effecting(effect.key, None if job.standing.fresh else effect, job.holder)


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
    """The decision that was returned; raises LogicError for what could not be carried out."""
    match result:
        case None:
            return DONE
        case (
            Ack(skipped=str())
            | Expire(reason=str())
            | Postpone(reason=str())
            | Retry(failure=Failure())
            | Fail(failure=Failure())
        ):
            return result
        case _:
            raise LogicError(f"{handler.name} returned {type(result).__name__}, no sound decision")
