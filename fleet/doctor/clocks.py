"""Whether our clock and another's agree: ages, leases and holds are told across machines."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from fleet.doctor.finding import Finding, Level

NOTICED_S: Final = 2.0
HARMFUL_S: Final = 15.0
"""Half of the age up to which a tick is traded by default."""


def skew(whose: str, ahead_s: float) -> Finding:
    """What it means that the other's clock is `ahead_s` ahead of ours."""
    if abs(ahead_s) < NOTICED_S:
        return Finding("clock", "ok", f"The clock of {whose} agrees with ours.")
    way = "ahead of" if ahead_s > 0 else "behind"
    text = f"The clock of {whose} is {abs(ahead_s):.1f} s {way} ours."
    level: Level = "fail" if abs(ahead_s) >= HARMFUL_S else "warn"
    return Finding("clock", level, text, "Synchronise the clocks of both machines (NTP).")


def date_s(header: str) -> float | None:
    """The moment in an HTTP Date header, seconds since 1970, in the middle of its second."""
    try:
        moment = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return datetime.timestamp(moment) + 0.5
