"""The options with which a user says which layout is meant, and for whom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from fleet.amqp.reasons import parse
from fleet.cli.load import load_services
from fleet.cli.options import of_services
from fleet.core.errors import SettingsError
from topology.management import management_url
from topology.model import Plan, QueueType
from topology.plan import plan
from topology.settings import TopologySettings

F = TypeVar("F", bound=Callable[..., Any])


def planned(function: F) -> F:
    """Give a command the options that make a plan."""
    handlers = of_services("The services to lay out.")
    queue_type = click.option(
        "--queue-type",
        type=click.Choice(get_args(QueueType)),
        default="quorum",
        show_default=True,
        help="Classic queues are for benchmarks: they lose what a quorum queue keeps.",
    )
    return handlers(queue_type(function))


prefixed = click.option(
    "--prefix", default="", metavar="TEXT", help="What the users' names begin with."
)


def with_passwords(name: str, text: str) -> Callable[[F], F]:
    """Give a command the folder with the users' passwords, under the option `name`."""

    def give(function: F) -> F:
        folder = click.option(
            name,
            "folder",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="FOLDER",
            help=f"{text} A file for each, named as the user.",
        )
        generate = click.option(
            "--generate", is_flag=True, help="Write a random password where FOLDER has none."
        )
        return folder(generate(function))

    return give


def planned_for(handlers: str, queue_type: QueueType) -> Plan:
    """The plan for the services that a user names. Raises SettingsError, TopologyError."""
    return plan([service.layout() for service in load_services(handlers)], queue_type=queue_type)


def vhost_of(settings: TopologySettings) -> str:
    """The virtual host of AMQP_URL."""
    return parse(settings.amqp_url).path[1:] or "/"


def management_of(settings: TopologySettings) -> str:
    """The management API's address with its user. Raises SettingsError where none is known."""
    url = management_url(settings.amqp_url, settings.management_url)
    if url is None:
        raise SettingsError(
            "MANAGEMENT_URL is missing; set it, for the AMQP port is not the usual one."
        )
    return url
