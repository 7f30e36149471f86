"""Commands that only speak with the store: open it, do one thing, close it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import click

from fleet.core.errors import SettingsError, StateError, StoreError
from fleet.settings import load
from fleet.store import StoreSettings, Tx, bindings, open_store
from fleet.store.controls import ALL
from fleet.telemetry import log as logs

T = TypeVar("T")

by = click.option("--by", metavar="NAME", help="Who acts, as it is written down. [your user]")


def asked(query: Callable[[Tx], T]) -> T:
    """What the store answers. Raises StoreError where it cannot."""
    return _with_store(query, writes=False)


def done(work: Callable[[Tx], T]) -> T:
    """Do it in one transaction. Raises StoreError where it cannot be done."""
    return _with_store(work, writes=True)


def check_service(tx: Tx, service: str) -> None:
    """Raise SettingsError for a service whose topology was never applied here."""
    known = bindings.services(tx)
    if service not in (ALL, *known):
        names = f"known are {', '.join(known)}" if known else "run `fleet topology apply` first"
        raise SettingsError(f"There is no service {service} in this store; {names}.")


def _with_store(work: Callable[[Tx], T], *, writes: bool) -> T:
    logs.configure(level="error")
    url = load(StoreSettings).url

    async def run() -> T:
        store = open_store(url, create=False)
        await store.open()
        try:
            return await (store.run(work) if writes else store.read(work))
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except StateError as error:
        raise StoreError(f"{error} Nothing was changed; run it again.") from None
