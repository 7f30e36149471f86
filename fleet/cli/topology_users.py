"""`fleet topology users`: who may do what on the broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from fleet.cli.layout import PIPE_WIDTH
from fleet.cli.options import as_json
from fleet.cli.planned import (
    management_of,
    planned,
    planned_for,
    prefixed,
    vhost_of,
    with_passwords,
)
from fleet.core.errors import SettingsError
from fleet.settings import load
from topology import passwords
from topology.export import with_users
from topology.management import load as take_over
from topology.model import QueueType
from topology.settings import TopologySettings
from topology.users import User
from topology.users import users as users_of


@click.command()
@planned
@as_json
@click.option("--apply", "apply_", is_flag=True, help="Create or update them on the broker.")
@with_passwords("--passwords", "Their passwords, for --apply.")
@prefixed
def users(
    handlers: str,
    queue_type: QueueType,
    folder: Path | None,
    prefix: str,
    *,
    as_json: bool,
    apply_: bool,
    generate: bool,
) -> None:
    """Show the users that a fleet needs, each with no more than it needs; or create them.

    --apply asks the management API, whose user (in MANAGEMENT_URL, else that of AMQP_URL) must be
    an administrator; the virtual host is that of AMQP_URL. No password is printed.
    """
    everybody = users_of(planned_for(handlers, queue_type), prefix)
    if apply_:
        if folder is None:
            raise SettingsError("--apply needs --passwords FOLDER, and --generate to fill it.")
        known = passwords.read(folder, (each.name for each in everybody), generate=generate)
        asyncio.run(_apply(everybody, known, load(TopologySettings)))
    if as_json:
        click.echo(json.dumps({"applied": apply_, "users": [asdict(each) for each in everybody]}))
    elif apply_:
        click.echo(f"The broker has {', '.join(each.name for each in everybody)}.")
    else:
        _show(everybody)


async def _apply(
    everybody: Sequence[User], known: dict[str, str], settings: TopologySettings
) -> None:
    nothing_else = {"vhosts": [{"name": vhost_of(settings)}]}
    await take_over(management_of(settings), with_users(nothing_else, everybody, known))


def _show(everybody: Sequence[User]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    for each in everybody:
        tag = f" [{each.tag}]" if each.tag else ""
        console.print(f"[cyan]{escape(each.name)}[/]{escape(tag)}: {escape(each.note)}")
        for what in ("configure", "write", "read"):
            pattern = escape(getattr(each, what))
            console.print(f"  [dim]{what:9}[/] {pattern}", soft_wrap=True)
