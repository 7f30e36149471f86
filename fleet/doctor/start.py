"""What a worker or bridge looks at when it starts: what is cheap, and what would lose money."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import structlog

from fleet.amqp.reasons import parse
from fleet.core.errors import StoreError
from fleet.doctor import broker, storing
from fleet.doctor.finding import Finding
from fleet.store.api import Store
from fleet.store.factory import folder_of

FORGETS: Final = "synchronous_commit"
"""Off, it lets PostgreSQL forget in a crash that an order was placed, to be placed again."""

log = structlog.get_logger("fleet.doctor")


async def look(amqp_url: str, store: Store, store_url: str) -> None:
    """Log each finding: a warning or an error where something is wrong, else for debugging.

    Raises StoreError where PostgreSQL is set to forget what it has committed.
    """
    found = [each for each in [broker.encryption(parse(amqp_url))] if each is not None]
    settings: dict[str, str] = {}
    folder = folder_of(store_url)
    if folder is not None:
        found += storing.disk(folder)
    else:
        begun = time.time()
        settings, now_s = await store.read(storing.ask_server)
        found += storing.server(settings, now_s, (begun + time.time()) / 2)
    _tell(iter(found))
    if settings.get(FORGETS) == "off":
        raise StoreError(
            f"PostgreSQL has {FORGETS} = off, so a crash can forget that an order was placed;"
            " set it to on for the fleet's user."
        )


def _tell(found: Iterator[Finding]) -> None:
    for each in found:
        say = {"ok": log.debug, "warn": log.warning, "fail": log.error}[each.level]
        say("looked at", check=each.check, text=each.text, fix=each.fix)
