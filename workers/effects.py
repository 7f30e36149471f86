"""What an attempt leaves of its effect: a pure rule."""

from __future__ import annotations

from fleet.core.decision import Ack, Decision, Expire, Fail, Postpone
from fleet.store.api import EffectResult, EffectState
from workers.context import Effecting


def outcome_of(effect: Effecting, decision: Decision) -> EffectResult:
    """The state of an effect after an attempt that ended in `decision`.

    Done where the handler returned. Where it raised, nobody knows, unless the other side said no
    or the handler said that the world was not touched: invariant 8.
    """
    state: EffectState
    match decision:
        case Ack():
            return EffectResult(effect.key, "done", result=effect.result)
        case Postpone():
            return EffectResult(effect.key, "unknown" if effect.before else "reserved")
        case Expire():
            return EffectResult(effect.key, "failed", error=decision.reason)
        case Fail():
            state = "failed" if effect.untouched else "unknown"
        case _:
            state = "reserved" if effect.untouched else "unknown"
    return EffectResult(effect.key, state, error=decision.failure.message)
