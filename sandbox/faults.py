"""Faults of the venue's write API, injected on purpose and by a seed."""

from __future__ import annotations

import random
import re
from decimal import Decimal
from typing import Final, NamedTuple

from fleet.core.errors import SettingsError

RATES: Final = ("errors", "timeouts", "lost_answers")
UNITS: Final = {"ms": Decimal("0.001"), "s": Decimal(1)}
LONGEST: Final = 60  # seconds

_RATE = re.compile(r"(?:0|1|0?\.[0-9]{1,9}|1\.0{1,9})").fullmatch
_SPAN = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s)").fullmatch


class Fault(NamedTuple):
    """What is to happen to one call: a name from RATES or "", after `latency` seconds."""

    name: str
    latency: float


class Faults:
    """How often which fault is injected, and how often it was.

    `errors` answer 503 before anything is done; `timeouts` never answer, and nothing is done;
    `lost_answers` do what was asked and drop the connection; `latency` delays every call.
    """

    def __init__(self, rates: dict[str, float], latency: float, seed: int) -> None:
        self._rates = rates
        self._latency = latency
        self._chance = random.Random(f"faults {seed}")  # noqa: S311 - faults, not secrets
        self.calls = 0
        self.injected = dict.fromkeys(RATES, 0)

    @classmethod
    def parse(cls, text: str, seed: int) -> Faults:
        """Faults from a text like "errors=0.3,latency=500ms,timeouts=0.05,lost_answers=0.05".

        Raises SettingsError for a name, rate or time that is none, or rates above 1 together.
        """
        rates, latency = dict.fromkeys(RATES, 0.0), 0.0
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = part.partition("=")
            if name == "latency":
                latency = _span(value)
            elif name in rates:
                rates[name] = _rate(name, value)
            else:
                known = ", ".join((*RATES, "latency"))
                raise SettingsError(f"Faults has no {name!r}; choose from {known}.")
        if sum(rates.values()) > 1:
            raise SettingsError("Faults has rates of more than 1 together; lower them.")
        return cls(rates, latency, seed)

    def draw(self) -> Fault:
        """What happens to the next call."""
        self.calls += 1
        at = self._chance.random()
        for name, rate in self._rates.items():
            if at < rate:
                self.injected[name] += 1
                return Fault(name, self._latency)
            at -= rate
        return Fault("", self._latency)

    def summary(self) -> dict[str, int]:
        """Calls, and injections by name."""
        return {"calls": self.calls, **self.injected}


def _rate(name: str, text: str) -> float:
    if not _RATE(text):
        raise SettingsError(f"Faults needs a rate from 0 to 1 for {name}, like {name}=0.05.")
    return float(text)


def _span(text: str) -> float:
    match = _SPAN(text)
    seconds = Decimal(match[1]) * UNITS[match[2]] if match else Decimal(LONGEST + 1)
    if seconds > LONGEST:
        raise SettingsError(f"Faults needs a latency of up to {LONGEST}s, like latency=500ms.")
    return float(seconds)
