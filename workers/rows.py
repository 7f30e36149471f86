"""What the journal says of a delivery, put together from what became of it."""

from __future__ import annotations

from typing import Final

import msgspec

from fleet import clock
from fleet.core.decision import Ack, Expire, Fail, Postpone, Retry
from fleet.core.envelope import EVENT_ID
from fleet.core.ulid import is_ulid
from fleet.store.api import EffectResult, KeyState, Outcome, Settled
from workers.effects import outcome_of, undecided
from workers.job import Job

_encode = msgspec.json.Encoder(decimal_format="string").encode
_FINAL: Final[dict[type, Outcome]] = {Ack: "done", Expire: "expired", Fail: "failed"}


class Rows:
    """Makes the rows of one service's worker."""

    def __init__(self, service: str, worker: str) -> None:
        self._service = service
        self._worker = worker

    def row(self, job: Job, saved: set[tuple[str, str]]) -> Settled:
        """The row of a job; raises what the handler's state raises when it is written.

        `saved` are the keys whose last state a later job of the group brings.
        """
        now_ms = clock.now_ms()
        decision, context, event = job.decision, job.context, job.event
        outcome: Outcome = _FINAL.get(type(decision), "")
        reason = ""
        match decision:
            case Ack(skipped=skipped) if skipped:
                outcome, reason = "skipped", skipped
            case Fail(failure=failure) | Retry(failure=failure):
                reason = f"{failure.error_type}: {failure.message}"
            case Expire(reason=text) | Postpone(reason=text):
                reason = text
        done = isinstance(decision, Ack)
        if not is_sent(job):
            outcome = ""  # it comes again; only what became of its effect is known
        return Settled(
            service=self._service,
            event_id=event.event_id if event else _claimed_id(job),
            outcome=outcome,
            attempt=job.headers.attempt,
            worker=self._worker,
            at_ms=context.now_ms if context else now_ms,
            handler=job.handler.name if job.handler else "",
            reason=reason[:500],
            # A body that cannot be read may name another's id; its row must not stand for that.
            replay_count=job.headers.replay_count if event else -1,
            age_ms=max(0, (context.now_ms if context else now_ms) - event.ts) if event else 0,
            writes=tuple(context.writes) if context and done else (),
            states=_states(job, saved),
            effect=_effect(job),
            lane=job.delivery.origin.queue if job.epoch else "",
            epoch=job.epoch,
            started=job.started,
        )


def is_sent(job: Job) -> bool:
    """Whether its decision is carried out: while it is ours, or where the handler is done.

    After a lost channel the message comes again, so a second one must not be sent in its place.
    """
    return job.delivery.is_ours or (isinstance(job.decision, Ack) and job.context is not None)


def is_journaled(job: Job) -> bool:
    """Whether a row is owed: not for what has one, is pure and done, or cannot be named.

    A replay always leaves one: a second copy of it must find that it was done.
    """
    if job.standing.seen is not None:
        return False
    if job.event is None:
        return bool(_claimed_id(job))
    if job.handler is None or job.handler.effect != "pure":
        return True
    if job.started or job.headers.replay_count:
        return True
    return not isinstance(job.decision, Ack) or bool(job.context and job.context.writes)


def _claimed_id(job: Job) -> str:
    """The id in the headers of a body that cannot be read: the audit knows it by that."""
    claimed = job.delivery.headers.get(EVENT_ID)
    return claimed if isinstance(claimed, str) and is_ulid(claimed) else ""


def _effect(job: Job) -> EffectResult | None:
    """What is known of its effect now, if it has one."""
    if job.context is None or job.context.effect is None or job.decision is None:
        return None
    result = outcome_of(job.context.effect, job.decision)
    return result if is_sent(job) else undecided(result)


def _states(job: Job, saved: set[tuple[str, str]]) -> tuple[KeyState, ...]:
    """The state to save with a job: of each key the last one of a group is enough."""
    context = job.context
    if not job.sequence or context is None or not isinstance(job.decision, Ack):
        return ()
    at = (job.delivery.origin.queue, job.key)
    if at in saved:
        return ()
    saved.add(at)
    return (KeyState(job.key, job.sequence, _encode(context.kept)),)
