"""`fleet topology`: the broker's layout, planned and found."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from fleet.amqp.admin import Admin
from fleet.amqp.reasons import parse
from fleet.cli.layout import show_plan
from fleet.cli.load import TOLD_HANDLERS, load_services, told_handlers
from fleet.core.errors import BrokerError, SettingsError
from fleet.settings import load
from fleet.store import StoreSettings, bindings, open_store
from topology.apply import Applied, apply
from topology.check import Difference, compare, probe, unseen_bindings
from topology.export import definitions, with_user
from topology.management import look, management_url
from topology.model import Plan, QueueType, ServiceLayout
from topology.plan import plan
from topology.settings import TopologySettings

F = TypeVar("F", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


def planned(function: F) -> F:
    """Give a command the options that make a plan."""
    handlers = click.option(
        "--handlers",
        default=told_handlers,
        show_default=TOLD_HANDLERS,
        metavar="MODULE:NAME[,…]",
        help="The services to lay out.",
    )
    queue_type = click.option(
        "--queue-type",
        type=click.Choice(get_args(QueueType)),
        default="quorum",
        show_default=True,
        help="Classic queues are for benchmarks: they lose what a quorum queue keeps.",
    )
    return handlers(queue_type(function))


def _named(_ctx: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not value:
        raise click.BadParameter("write a virtual host's name; the default one is /.")
    return value


@click.group()
def command() -> None:
    """Show, apply, check or export the broker's layout.

    The broker is the one at AMQP_URL.
    """


@command.command()
@planned
@as_json
def show(handlers: str, queue_type: QueueType, *, as_json: bool) -> None:
    """Show the plan; needs no broker."""
    layout = _plan(handlers, queue_type)
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
    applied = asyncio.run(_apply(_plan(handlers, queue_type), load(TopologySettings)))
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
@click.pass_context
def check(
    ctx: click.Context, handlers: str, queue_type: QueueType, *, as_json: bool, amqp_only: bool
) -> None:
    """Print each difference between plan and broker; exit code 1 where there is one.

    Bindings, and objects that are too many, are seen only through the management API: at
    MANAGEMENT_URL, else on the AMQP host's port 15672.
    """
    layout = _plan(handlers, queue_type)
    found = asyncio.run(_check(layout, load(TopologySettings), amqp_only=amqp_only))
    if as_json:
        click.echo(json.dumps({"differences": [asdict(difference) for difference in found]}))
    else:
        unseen = " Bindings were not looked at." if amqp_only else ""
        lines = [str(difference) for difference in found]
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
@click.option("--user", is_flag=True, help="Add the user of AMQP_URL, the password as a hash.")
def export(
    handlers: str, queue_type: QueueType, vhost: str, output: Path | None, *, user: bool
) -> None:
    """Write the definitions.json that a broker loads at boot.

    A broker that loads it at its very first boot makes no guest user, so it needs --user; keep
    that file like a password. Loaded later, it leaves the users there alone.
    """
    content = definitions(_plan(handlers, queue_type), vhost)
    if user:
        amqp = parse(load(TopologySettings).amqp_url)
        name, password = amqp.user or "guest", amqp.password or "guest"
        content = with_user(content, name, password, os.urandom(4))
    text = json.dumps(content, indent=2)
    if output is None:
        click.echo(text)
        return
    try:
        output.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"Cannot write {output}: {error.strerror}.") from None


def _plan(handlers: str, queue_type: QueueType) -> Plan:
    services = load_services(handlers)
    return plan([service.layout() for service in services], queue_type=queue_type)


async def _apply(layout: Plan, settings: TopologySettings) -> Applied:
    async with await Admin.open(settings.amqp_url) as admin:
        applied = await apply(layout, admin)
    await _record(layout.services)
    return applied


async def _record(services: Sequence[ServiceLayout]) -> None:
    """Write down what was bound: AMQP cannot be asked, and an unfed worker must not start."""
    store = open_store(load(StoreSettings).url)
    await store.open()
    try:
        for service in services:
            work = partial(
                bindings.record,
                service=service.name,
                patterns=service.fed,
                now_ms=time.time_ns() // 1_000_000,
                partitions=service.lanes.partitions if service.lanes else None,
            )
            await store.run(work)
    finally:
        await store.close()


async def _check(layout: Plan, settings: TopologySettings, *, amqp_only: bool) -> list[Difference]:
    url = management_url(settings.amqp_url, settings.management_url)
    # AMQP first, in any case: its user is the management API's too where that has none of its own.
    async with await Admin.open(settings.amqp_url) as admin:
        if amqp_only:
            return await probe(layout, admin)
        if url is None:
            why = "set MANAGEMENT_URL, for the AMQP port is not the usual one"
            return [*await probe(layout, admin), unseen_bindings(why)]
        try:
            return compare(layout, await look(url, _vhost(settings.amqp_url)))
        except BrokerError as error:
            if settings.management_url:
                raise
            return [*await probe(layout, admin), unseen_bindings(str(error))]


def _vhost(amqp_url: str) -> str:
    return parse(amqp_url).path[1:] or "/"
