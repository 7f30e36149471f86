"""Which of the parked messages are meant. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from fleet.core.errors import SettingsError
from replay.entry import Entry

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AGO = re.compile(r"(\d{1,9})([smhd])\Z").match


class Selection(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A message is selected where it fits every field that is given; each takes alternatives.

    Patterns are shell patterns (`wallet.*`). Times are epoch milliseconds of the last failure.
    """

    ids: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    handlers: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    text: str = ""
    """Stands in the error's message or in the body."""
    since_ms: int = 0
    until_ms: int = 0

    def matches(self, entry: Entry, body: bytes) -> bool:
        """Whether the message is selected."""
        return (
            (not self.ids or entry.id in self.ids)
            and _fits(self.types, entry.type)
            and _fits(self.classes, entry.error_class)
            and _fits(self.handlers, entry.handler)
            and _fits(self.errors, entry.error_type)
            and _fits(self.fingerprints, entry.fingerprint)
            and self._in_time(entry.last_ms)
            and (not self.text or self.text in entry.error or self.text.encode() in body)
        )

    def _in_time(self, at_ms: int) -> bool:
        return at_ms >= self.since_ms and (not self.until_ms or at_ms <= self.until_ms)


def moment(text: str, now_ms: int) -> int:
    """The time that `2h`, `30m`, `1d` (ago) or an ISO date means, in milliseconds.

    Raises SettingsError where it means none.
    """
    ago = _AGO(text)
    if ago is not None:
        return now_ms - int(ago[1]) * _UNITS[ago[2]] * 1000
    try:
        at = datetime.fromisoformat(text)
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise SettingsError(
            f"{text!r} is no time; write 30s, 15m, 2h or 1d (ago), or 2026-01-31T12:00."
        ) from None


def _fits(patterns: tuple[str, ...], value: str) -> bool:
    return not patterns or any(fnmatchcase(value, pattern) for pattern in patterns)
