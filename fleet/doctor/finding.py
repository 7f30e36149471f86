"""What a check found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about one thing, and what to do about it."""

    check: str
    """What was looked at, in a word or two."""
    level: Level
    """warn: the fleet works, but a person should know; fail: it does not, or loses something."""
    text: str
    """What was found."""
    fix: str = ""
    """What to do; "" where nothing is to be done."""


def is_well(findings: Iterable[Finding]) -> bool:
    """Whether none of them is a failure."""
    return all(each.level != "fail" for each in findings)


def worst_or(findings: list[Finding], check: str, text: str) -> list[Finding]:
    """The findings, or one that says that all is well."""
    return findings or [Finding(check, "ok", text)]
