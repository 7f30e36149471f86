"""What an audit comes to, in one line."""

from __future__ import annotations

from fleet.audit.auditor import Findings


def verdict(findings: Findings) -> str:
    """One line that says whether all is well, and where it is not, why.

    Messages without a readable id are told, and are no reason for or against.
    """
    said = [_accounted(findings), _doubled(findings.doubled)]
    text = f"{'; '.join(said)}."
    if findings.unreadable:
        text += f" {_unreadable(findings.unreadable)}"
    return text


def _accounted(findings: Findings) -> str:
    reckoning = findings.reckoning
    missing, waiting = len(reckoning.unaccounted), reckoning.fleet.counts["waiting"]
    if missing:
        return f"{_count(missing, 'event is', 'events are')} unaccounted for"
    if not reckoning.emitted:
        return "There is no event to account for"
    asides = [f"{waiting:,} still waiting"] if waiting else []
    if unrouted := reckoning.fleet.counts["unrouted"]:
        asides.append(f"{unrouted:,} that no service takes, in pf.unrouted")
    if elsewhere := reckoning.fleet.counts["elsewhere"]:
        asides.append(f"{elsewhere:,} for {', '.join(findings.others)}, not looked at")
    return "Every event is accounted for" + (f" ({'; '.join(asides)})" if asides else "")


def _doubled(times: int) -> str:
    return (
        f"{_count(times, 'effect was', 'effects were')} had twice"
        if times
        else ("nothing was done twice")
    )


def _unreadable(messages: int) -> str:
    which = _count(messages, "message", "messages")
    return f"{which} in the log without a readable id: no event of this fleet."


def _count(number: int, one: str, more: str) -> str:
    return f"{number:,} {one if number == 1 else more}"
