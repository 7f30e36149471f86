"""What became of the agent at a venue that misbehaves: its mode, and whether its book is right."""

from __future__ import annotations

from dataclasses import dataclass

from agent import state
from agent.venue import Venue
from fleet.audit.witness import read_summary
from fleet.store import Store, positions


@dataclass(frozen=True, slots=True)
class VenueEnd:
    """The venue's faults, and where they left the agent."""

    mode: str
    """The agent's mode at the end; none: no agent worked."""
    calls: int
    """Of the venue's write API."""
    injected: dict[str, int]
    """Faults by name."""
    differences: tuple[str, ...]
    """Positions that the book and the venue do not agree on."""

    @property
    def injections(self) -> int:
        """Calls that did not go as they should."""
        return sum(self.injected.values())

    @property
    def rate(self) -> float:
        """The share of calls that did not go as they should."""
        return round(self.injections / self.calls, 3) if self.calls else 0.0


async def look(store: Store, url: str, agent: str, key: str) -> VenueEnd:
    """Ask both sides, once everything has ended."""
    faults = dict((await read_summary(url))["faults"])
    known = (await store.read(state.every)).get(agent)
    book = await store.read(lambda tx: positions.open_positions(tx, agent))
    async with Venue(url, agent, key) as venue:
        listed = {(one.position_id, one.pair, one.direction) for one in await venue.positions()}
    held = {(one.venue_id, one.pair, one.direction) for one in book if one.state != "reserved"}
    told = [f"the book has {pair} {way}, the venue has not" for _, pair, way in held - listed]
    told += [f"the venue has {pair} {way}, the book has not" for _, pair, way in listed - held]
    calls = faults.pop("calls")
    return VenueEnd(known.standing.mode if known else "none", calls, faults, tuple(sorted(told)))
