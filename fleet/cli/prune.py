"""`fleet prune`: the store without what nothing can ask about any more."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any, Final

import click
import msgspec

from fleet import clock
from fleet.amqp.log import open_log
from fleet.amqp.looks import open_looks
from fleet.cli.options import as_json
from fleet.core.envelope import EVENT_ID
from fleet.core.errors import SettingsError, StateError, StoreError
from fleet.core.ulid import is_ulid, ulid_ms
from fleet.settings import load
from fleet.store import BRIDGE, StoreSettings, open_store
from fleet.store import prune as pruning
from fleet.store.prune import Pruned
from topology import names
from topology.plan import LOG_AGE
from topology.settings import TopologySettings

DAY_MS: Final = 86_400_000
LEAST_DAYS: Final = int(LOG_AGE.removesuffix("D"))
_DAYS = re.compile(r"([1-9][0-9]{0,4})d\Z")


@click.command()
@click.option("--older-than", default=f"{LEAST_DAYS}d", show_default=True, metavar="DAYS")
@click.option("--dry-run", is_flag=True, help="Only count.")
@as_json
def command(older_than: str, *, dry_run: bool, as_json: bool) -> None:
    """Delete what is older than DAYS (30d and more) and over, while the fleet runs.

    Of the journal stays what can still come back: what failed, what waits in a failed queue or
    stands in the archive, and all that the log still has. A key's state in a lane goes if no event
    has touched it for so long; its next event starts it anew. Alerts go that were resolved,
    decisions whose orders are over, the files of cases without a dispute, a job or a payment that
    is open, and the notes on frames that could not be read; the frames stay in pf.quarantine.
    Effects, positions and what was agreed stay for ever.
    """
    cutoff_ms = clock.now_ms() - _days(older_than) * DAY_MS
    try:
        pruned = asyncio.run(_prune(cutoff_ms, dry_run=dry_run))
    except StateError as error:
        raise StoreError(f"{error} What was pruned is gone; run it again for the rest.") from None
    if as_json:
        click.echo(msgspec.json.encode(pruned).decode())
        return
    would = "would go" if dry_run else "are gone"
    click.echo(
        f"{pruned.journal:,} journal rows, {pruned.lane_states:,} lane states, {pruned.starts:,}"
        f" starts, {pruned.alerts:,} alerts, {pruned.decisions:,} decisions, {pruned.cases:,}"
        f" entries of case files and {pruned.quarantined:,} notes on unreadable frames {would};"
        f" {pruned.kept:,} old journal rows stay, for what can come back."
    )


def _days(text: str) -> int:
    found = _DAYS.match(text)
    if not found:
        raise SettingsError("--older-than is a number of days: write 90d.")
    days = int(found[1])
    if days < LEAST_DAYS:
        raise SettingsError(
            f"--older-than must be at least {LEAST_DAYS}d: so long the log keeps events that may be"
            " replayed."
        )
    return days


async def _prune(cutoff_ms: int, *, dry_run: bool) -> Pruned:
    url = load(TopologySettings).amqp_url
    store = open_store(load(StoreSettings).url, create=False)
    await store.open()
    try:
        cutoff_ms = min(cutoff_ms, await _log_begins_ms(url, cutoff_ms))
        services = await store.read(pruning.services)
        waiting = await _waiting(url, services)
        return await pruning.prune(store, cutoff_ms, waiting, dry_run=dry_run)
    finally:
        await store.close()


async def _log_begins_ms(url: str, otherwise: int) -> int:
    """When the log's oldest event happened: it drops whole segments, so it may go far back."""
    async with open_log(url, names.LOG) as log:
        first = await log.first()
    if first is None:
        return otherwise
    event_id = first.headers.get(EVENT_ID)
    return ulid_ms(event_id) if isinstance(event_id, str) and is_ulid(event_id) else 0


async def _waiting(url: str, services: Sequence[str]) -> dict[str, set[str]]:
    """The ids of what waits for a person, by service; the bridge's sheds wait nowhere."""
    async with open_looks(url) as looks:
        unrouted = _ids(await looks.browse(names.UNROUTED))
        return {
            name: unrouted
            | (set() if name == BRIDGE else _ids(await looks.browse(names.failed(name))))
            for name in services
        }


def _ids(messages: Sequence[Any]) -> set[str]:
    headers = (message.header.properties.headers or {} for message in messages)
    return {str(each[EVENT_ID]) for each in headers if EVENT_ID in each}
