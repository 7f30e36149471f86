"""What an attempt leaves of its effect: a pure rule."""

from __future__ import annotations

import msgspec

from fleet.core.decision import Ack, Decision, Expire, Fail, Postpone
from fleet.store.api import EffectResult, EffectState
from workers.context import Effecting


def outcome_of(effect: Effecting, decision: Decision) -> EffectResult:
    """What an attempt that ended in `decision` leaves in the effect's row."""
    return msgspec.structs.replace(_outcome(effect, decision), mode=effect.mode)


def undecided(result: EffectResult) -> EffectResult:
    """What an attempt leaves whose event comes again, as its channel was lost.

    Whoever has it next decides. A refusal that stayed would be taken for one that is parked.
    """
    if result.state != "failed":
        return result
    return msgspec.structs.replace(result, state="reserved")


def _outcome(effect: Effecting, decision: Decision) -> EffectResult:
    """The state of an effect after an attempt that ended in `decision`.

    Done where the handler returned, none where it skipped. Where it raised, nobody knows,
    unless the other side said no or the handler said that the world was not touched (invariant 8).
    """
    state: EffectState
    error = ""
    # What an attempt knows of itself says nothing about the one before it.
    is_sure = effect.untouched and effect.before is None
    match decision:
        case Ack(skipped=reason) if reason and effect.before is None:
            return EffectResult(effect.key, "none", holder=effect.holder)
        case Ack(skipped=reason) if reason:
            state, error = "failed", reason
        case Ack():
            return EffectResult(effect.key, "done", result=effect.result, holder=effect.holder)
        case Postpone():
            state = "unknown" if effect.before else "reserved"
        case Expire():
            state, error = "failed", decision.reason
        case Fail():
            state, error = ("failed" if is_sure else "unknown"), decision.failure.message
        case _:
            state, error = ("reserved" if is_sure else "unknown"), decision.failure.message
    return EffectResult(effect.key, state, error=error, holder=effect.holder)
