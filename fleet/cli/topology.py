"""`fleet topology`: the broker's layout, planned and found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from fleet import clock
from fleet.amqp.admin import Admin
from fleet.amqp.looks import open_looks
from fleet.amqp.reasons import parse
from fleet.cli.layout import show_plan
from fleet.cli.options import as_json
from fleet.cli.planned import (
    management_of,
    planned,
    planned_for,
    prefixed,
    vhost_of,
    with_passwords,
)
from fleet.cli.topology_migrate import migrate_
from fleet.cli.topology_users import users as users_command
from fleet.core.errors import BrokerError, SettingsError, TopologyError
from fleet.settings import load
from fleet.store import StoreSettings, bindings, open_store
from topology import passwords
from topology.apply import Applied, apply, record
from topology.check import Difference, compare, compare_users, probe, strangers, unseen_bindings
from topology.export import definitions, with_user, with_users
from topology.management import look, look_at_users, management_url
from topology.model import Plan, QueueType, ServiceLayout
from topology.remedy import moved, remedies
from topology.settings import TopologySettings
from topology.users import User, users


def _named(_ctx: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not value:
        raise click.BadParameter("write a virtual host's name; the default one is /.")
    return value


@click.group()
def command() -> None:
    """Show, apply, check, migrate or export the broker's layout.

    The broker is the one at AMQP_URL.
    """


command.add_command(users_command)
command.add_command(migrate_)


@command.command()
@planned
@as_json
def show(handlers: str, queue_type: QueueType, *, as_json: bool) -> None:
    """Show the plan; needs no broker."""
    layout = planned_for(handlers, queue_type)
    if as_json:
        click.echo(json.dumps(definitions(layout), indent=2))
    else:
        show_plan(layout)


@command.command("apply")
@planned
@as_json
def apply_(handlers: str, queue_type: QueueType, *, as_json: bool) -> None:
    """Declare what is missing; change nothing that is there. What was bound goes into the store.

    Exit code 2 where something is there with another value: no queue is changed behind your back.
    """
    applied = asyncio.run(_apply(planned_for(handlers, queue_type), load(TopologySettings)))
    if as_json:
        click.echo(json.dumps(asdict(applied)))
        return
    click.echo(f"The broker has all {applied.declared} exchanges, queues and bindings.")
    for service, patterns in applied.patterns.items():
        click.echo(f"{service} is fed by {', '.join(patterns)}.")


@command.command()
@planned
@as_json
@click.option("--amqp-only", is_flag=True, help="Leave out what only the management API can show.")
@click.option(
    "--users",
    "with_users",
    is_flag=True,
    help="Compare users too; only an administrator sees them.",
)
@prefixed
@click.pass_context
def check(
    ctx: click.Context,
    handlers: str,
    queue_type: QueueType,
    prefix: str,
    *,
    as_json: bool,
    amqp_only: bool,
    with_users: bool,
) -> None:
    """Print each difference between plan and broker; exit code 1 where there is one.

    Bindings, and objects that are too many, are seen only through the management API: at
    MANAGEMENT_URL, else on the AMQP host's port 15672.
    """
    layout = planned_for(handlers, queue_type)
    settings = load(TopologySettings)
    everybody = users(layout, prefix) if with_users else ()
    found, waiting = asyncio.run(_check(layout, settings, everybody, amqp_only=amqp_only))
    remedied = [*zip(found, remedies(layout, found, waiting), strict=True)]
    if as_json:
        differences = [{**asdict(each), "remedy": remedy} for each, remedy in remedied]
        click.echo(json.dumps({"differences": differences}))
    else:
        unseen = " Bindings were not looked at." if amqp_only else ""
        lines = [f"{each} ({remedy})" if remedy else str(each) for each, remedy in remedied]
        click.echo("\n".join(lines or [f"The broker is as planned.{unseen}"]))
    ctx.exit(1 if found else 0)


@command.command()
@planned
@click.option(
    "--vhost",
    default="/",
    show_default=True,
    callback=_named,
    help="The virtual host to lay out.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write instead of stdout.",
)
@click.option("--bare", is_flag=True, help="Leave out exchanges, queues and bindings.")
@click.option("--user", is_flag=True, help="Add the user of AMQP_URL as an administrator.")
@with_passwords("--users", "Add the fleet's users, with the passwords in FOLDER.")
@prefixed
def export(
    *,
    handlers: str,
    queue_type: QueueType,
    vhost: str,
    output: Path | None,
    folder: Path | None,
    prefix: str,
    bare: bool,
    user: bool,
    generate: bool,
) -> None:
    """Write the definitions.json that a broker loads at boot.

    A broker that loads it at its very first boot makes no guest user, so it needs --user or
    --users. Passwords are in it as salted hashes; keep the file like a password all the same.
    Loaded later, it leaves alone what it does not name. A cluster's nodes load it before they are
    all there, and a queue that is declared then has one member: give it a --bare one.
    """
    content: dict[str, Any] = {"vhosts": [{"name": vhost}]}
    if not bare:
        content = definitions(planned_for(handlers, queue_type), vhost)
    if user:
        amqp = parse(load(TopologySettings).amqp_url)
        content = with_user(content, amqp.user or "guest", amqp.password or "guest")
    if folder is not None:
        everybody = users(planned_for(handlers, queue_type), prefix)
        known = passwords.read(folder, (each.name for each in everybody), generate=generate)
        content = with_users(content, everybody, known)
    text = json.dumps(content, indent=2)
    if output is None:
        click.echo(text)
        return
    try:
        output.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"Cannot write {output}: {error.strerror}.") from None


async def _apply(layout: Plan, settings: TopologySettings) -> Applied:
    await _refuse_other_lanes(layout.services)
    async with await Admin.open(settings.amqp_url) as admin:
        applied = await apply(layout, admin)
    await _record(layout)
    return applied


async def _refuse_other_lanes(services: Sequence[ServiceLayout]) -> None:
    """Raise TopologyError where a service has lanes in another number: keys would change lanes."""
    store = open_store(load(StoreSettings).url)
    await store.open()
    try:
        counts = await store.read(bindings.lane_counts)
    finally:
        await store.close()
    for service in services:
        has, wants = counts.get(service.name), service.lanes.partitions if service.lanes else None
        if has and wants and has != wants:
            raise TopologyError(
                f"{service.name} has {has} lanes, and {wants} are planned; run `fleet topology"
                " migrate`, which keeps the order of what waits in them."
            )


async def _record(layout: Plan) -> None:
    store = open_store(load(StoreSettings).url)
    await store.open()
    try:
        await store.run(partial(record, plan=layout, now_ms=clock.now_ms()))
    finally:
        await store.close()


async def _check(
    layout: Plan, settings: TopologySettings, everybody: Sequence[User], *, amqp_only: bool
) -> tuple[list[Difference], dict[str, int]]:
    """The differences, and how many messages are in the queues among them."""
    # AMQP first, in any case: its user is the management API's too where that has none of its own.
    async with await Admin.open(settings.amqp_url) as admin:
        found = await _found(layout, settings, admin, amqp_only=amqp_only)
    if everybody:
        access = await look_at_users(management_of(settings), vhost_of(settings))
        found += compare_users(everybody, access)
        found += strangers(layout, everybody, access)
    async with open_looks(settings.amqp_url) as looks:
        depths = await looks.depths(moved(found))
    return found, {queue: depth.ready for queue, depth in depths.items()}


async def _found(
    layout: Plan, settings: TopologySettings, admin: Admin, *, amqp_only: bool
) -> list[Difference]:
    if amqp_only:
        return await probe(layout, admin)
    url = management_url(settings.amqp_url, settings.management_url)
    if url is None:
        why = "set MANAGEMENT_URL, for the AMQP port is not the usual one"
        return [*await probe(layout, admin), unseen_bindings(why)]
    try:
        return compare(layout, await look(url, vhost_of(settings)))
    except BrokerError as error:
        if settings.management_url:
            raise
        return [*await probe(layout, admin), unseen_bindings(str(error))]
