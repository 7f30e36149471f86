"""The agent's doors to the world: the faucet, payments, hiring, its trading account.

The platform's documents name no endpoints for them, so each is a port: a promise here, and an
HTTP adapter whose path and body are settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from agent.venue import Venue
from agent.world.settings import WorldSettings
from agent.world.template import Template, Value


class Port(Protocol):
    """Something that is done once under a key."""

    async def send(self, values: Mapping[str, Value], key: str) -> bytes:
        """Do it, or find that it was done under this key before; the answer as JSON.

        Raises what `Venue` raises: after NetworkError and ApiError nobody knows whether it was
        done, after RefusedError and NotNowError it was not, by this request.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """All doors of one agent. `resend`: the other side knows a key again for 24 hours."""

    faucet: Port
    release: Port
    hire: Port
    reinvest: Port
    resend: bool = True


class HttpPort:
    """A POST to one path of the platform, its key in the header Idempotency-Key."""

    def __init__(self, venue: Venue, path: str, body: str) -> None:
        self._venue = venue
        self._path = path
        self._body = Template(body)

    async def send(self, values: Mapping[str, Value], key: str) -> bytes:
        """Post it; a 409 carries the original answer."""
        return await self._venue.act(self._path, self._body.fill({**values, "key": key}), key)


class PaperPort:
    """Does nothing, and says so: paper trading moves no money."""

    async def send(self, _: Mapping[str, Value], key: str) -> bytes:
        """An answer that could be the platform's."""
        return msgspec.json.encode({"job_id": f"paper_{key}", "paper": True})


class World:
    """What the handlers beside trading work with: the settings, and the doors of the platform.

    On paper all doors are painted on the wall.
    """

    def __init__(self, settings: WorldSettings, venue: Venue, *, is_paper: bool = False) -> None:
        self.settings = settings
        if is_paper:
            wall = PaperPort()
            self.ports = Ports(faucet=wall, release=wall, hire=wall, reinvest=wall)
            return
        self.ports = Ports(
            faucet=HttpPort(venue, settings.faucet_path, settings.faucet_body),
            release=HttpPort(venue, settings.release_path, settings.release_body),
            hire=HttpPort(venue, settings.hire_path, settings.hire_body),
            reinvest=HttpPort(venue, settings.reinvest_path, settings.reinvest_body),
            resend=settings.resend,
        )
