"""A plan: exactly which messages a replay is about, as they were when somebody looked. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

import msgspec

from fleet.core.errors import SettingsError
from replay.entry import Entry
from replay.selection import Selection
from replay.verdict import SENT, Outcome, Verdict

VERSION: Final = 1


class Item(msgspec.Struct, frozen=True, gc=False):
    """One message in one state: another body or another replay count is another state."""

    id: str
    digest: str
    replays: int
    type: str
    outcome: Outcome
    why: str = ""

    @property
    def is_sent(self) -> bool:
        """Whether a run of the plan sends it home."""
        return self.outcome in SENT


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a run does: it sends the items whose outcome is run or done, and no other message."""

    version: Literal[1]
    service: str
    queue: str
    made_at: str
    made_by: str
    selection: Selection
    even_if_stale: bool
    items: tuple[Item, ...]

    @property
    def sent(self) -> list[Item]:
        """The items that a run sends home."""
        return [item for item in self.items if item.is_sent]

    @property
    def counts(self) -> Counter[str]:
        """How many items there are of each outcome."""
        return Counter(item.outcome for item in self.items)

    def reasons(self) -> list[tuple[str, str, int]]:
        """Outcome, a reason and how many have it, the most frequent first."""
        found = Counter((item.outcome, item.why) for item in self.items)
        return [(outcome, why, count) for (outcome, why), count in found.most_common()]


def item(entry: Entry, verdict: Verdict) -> Item:
    """The item of a message that was looked at."""
    return Item(entry.id, entry.digest, entry.replays, entry.type, verdict.outcome, verdict.why)


def write_plan(plan: Plan) -> bytes:
    """The plan as JSON that a person can read."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n"


def read_plan(raw: bytes, name: str) -> Plan:
    """The plan in a file called `name`. Raises SettingsError where it is none."""
    try:
        return msgspec.json.decode(raw, type=Plan)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise SettingsError(f"{name} is no plan of replay-failed: {error}.") from None


Standing = Literal["meant", "changed", "replayed"]


class Meant:
    """Tells the messages that a list of items means from all others."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items: dict[str, dict[int, set[str]]] = {}
        for each in items:
            self._items.setdefault(each.id, {}).setdefault(each.replays, set()).add(each.digest)

    def standing(self, entry: Entry) -> Standing | None:
        """None: not meant. Meant, or of a meant id but with another body or replayed since."""
        states = self._items.get(entry.id)
        if states is None:
            return None
        digests = states.get(entry.replays)
        if digests is None:
            return "replayed"
        return "meant" if entry.digest in digests else "changed"


def cohorts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items in steps that grow: 1, then 5, then 5 % of all, then the rest."""
    start = 0
    for size in (1, 5, max(5, len(items) // 20), len(items)):
        part = items[start : start + size]
        if part:
            yield part
        start += size
