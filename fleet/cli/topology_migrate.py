"""`fleet topology migrate`: another layout for a broker that runs."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from fleet import clock
from fleet.amqp.admin import Admin
from fleet.amqp.looks import Depth, open_looks
from fleet.amqp.mover import open_mover
from fleet.cli.options import as_json
from fleet.cli.planned import management_of, planned, planned_for, vhost_of
from fleet.core.errors import StateError, StoreError
from fleet.settings import load
from fleet.store import Store, StoreSettings, open_store
from topology.management import look
from topology.migrate import Migrated, migrate, todo_at
from topology.model import Plan, QueueType
from topology.settings import TopologySettings
from topology.site import Site
from topology.todo import Todo


@click.command("migrate")
@planned
@as_json
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option(
    "--patience",
    type=click.FloatRange(min=1),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="How long consumers may hold a queue's messages before it is left as it was.",
)
@click.pass_context
def migrate_(
    ctx: click.Context,
    handlers: str,
    queue_type: QueueType,
    *,
    as_json: bool,
    dry_run: bool,
    patience: float,
) -> None:
    """Bring a running broker to a changed plan; nothing in a queue is lost.

    A queue with other arguments is made anew under its own name, while workers go on; lanes in
    another number need the bridge and the workers stopped. Needs the management API. Killed
    at any moment, run it again. Exit code 1 where something is left to do.
    """
    layout = planned_for(handlers, queue_type)
    settings = load(TopologySettings)
    if dry_run:
        said = asyncio.run(_plan(layout, settings))
        click.echo(json.dumps(said) if as_json else _worded(said))
        return
    teller = _Teller(quiet=as_json)
    done = asyncio.run(_run(layout, settings, teller, patience))
    if as_json:
        click.echo(json.dumps({**asdict(done), "moved": dict(teller.moved)}))
    else:
        click.echo(_summary(done, teller.moved.total()))
    ctx.exit(1 if done.held or done.left else 0)


class _Teller:
    """Says on standard error what happens, each count of moved messages at most once a second."""

    def __init__(self, *, quiet: bool) -> None:
        self.moved: Counter[str] = Counter()
        self._quiet = quiet
        self._last = 0.0

    def __call__(self, queue: str, what: str, count: int = 0) -> None:
        self.moved[queue] += count
        now = time.monotonic()
        if self._quiet or (count and now - self._last < 1):
            return
        self._last = now
        moved = f" {self.moved[queue]:,}" if count else ""
        click.echo(f"{queue}: {what}{moved}", err=True)


async def _run(
    layout: Plan, settings: TopologySettings, teller: _Teller, patience_s: float
) -> Migrated:
    store = await _store()
    try:
        async with (
            await Admin.open(settings.amqp_url) as admin,
            open_mover(settings.amqp_url) as mover,
        ):
            site = Site(
                admin=admin,
                mover=mover,
                store=store,
                management=management_of(settings),
                vhost=vhost_of(settings),
                holder=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
                now_ms=clock.now_ms,
                tell=teller,
                patience_s=patience_s,
            )
            return await migrate(layout, site)
    except StateError as error:
        raise StoreError(f"{error} Nothing is lost; run it again.") from None
    finally:
        await store.close()


async def _plan(layout: Plan, settings: TopologySettings) -> dict[str, Any]:
    """What would be done."""
    url, vhost = management_of(settings), vhost_of(settings)
    store = await _store()
    try:
        work = await todo_at(layout, store, await look(url, vhost))
    finally:
        await store.close()
    queues = [each.queue.name for each in work.renewals]
    queues += [lane for each in work.resizes for lane in each.found]
    # The management API's own counts are some seconds old.
    async with open_looks(settings.amqp_url) as looks:
        return _said(work, await looks.depths(queues))


def _said(work: Todo, depths: Mapping[str, Depth]) -> dict[str, Any]:
    def waiting(*queues: str) -> int:
        return sum(depths[queue].ready for queue in queues if queue in depths)

    return {
        "renew": {each.queue.name: waiting(each.queue.name) for each in work.renewals},
        "resize": {
            each.service.name: {
                "from": len(each.found),
                "to": each.service.lanes.partitions if each.service.lanes else 0,
                "messages": waiting(*each.found),
            }
            for each in work.resizes
        },
        "unbind": [f"{b.source} -> {b.to} {b.destination} on {b.key}" for b in work.unbind],
        "left": [str(each) for each in work.left],
    }


def _worded(said: dict[str, Any]) -> str:
    lines = [
        *(f"make anew: {queue}, with {n:,} messages" for queue, n in said["renew"].items()),
        *(
            f"make {each['to']} lanes of {each['from']}: {name}, with {each['messages']:,}"
            " messages; the bridge and its workers must be stopped for it"
            for name, each in said["resize"].items()
        ),
        *(f"unbind: {way}" for way in said["unbind"]),
        *(f"left to you: {each}" for each in said["left"]),
    ]
    return "\n".join(lines or ["Nothing is to be migrated; `fleet topology apply` adds the rest."])


def _summary(done: Migrated, moved: int) -> str:
    lines = [f"left to you: {each}" for each in done.left]
    if done.held:
        lines.append(
            f"Consumers held messages of {', '.join(done.held)} too long; they are as they were."
        )
    made = len(done.renewed)
    lines.append(
        f"Made anew: {made} {'queue' if made == 1 else 'queues'}"
        f"{''.join(f', the lanes of {name}' for name in done.resized)}; moved {moved:,} messages,"
        f" took away {done.unbound} bindings. "
        + ("The broker is as planned." if not (done.left or done.held) else "Something is left.")
    )
    return "\n".join(lines)


async def _store() -> Store:
    store = open_store(load(StoreSettings).url, create=False)
    await store.open()
    return store
