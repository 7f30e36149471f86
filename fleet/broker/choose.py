"""A broker on any machine: the one given, else Docker's, else a local one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fleet.broker import docker
from fleet.broker.docker import DockerBroker
from fleet.broker.given import GivenBroker
from fleet.broker.local import LocalBroker
from fleet.broker.running import RunningBroker
from fleet.broker.settings import BrokerSettings, Kind
from fleet.core.errors import BrokerError
from fleet.settings import load

Say = Callable[[str], None]


def provide(
    settings: BrokerSettings | None = None,
    *,
    kind: Kind | None = None,
    data: Path | None = None,
    say: Say = lambda _: None,
) -> RunningBroker:
    """A broker that serves, to be used in a `with` block; nothing of ours runs after it.

    Without `kind`, `data` and `FLEET_BROKER`, which force the choice: `AMQP_URL`'s if it is set,
    else Docker's if it can, else a local one. `data` is a folder for a local node's data, kept for
    the next one.
    `say` hears one sentence about each thing that takes time. Raises BrokerError.
    """
    settings = settings or load(BrokerSettings)
    kind = kind or settings.kind
    if settings.amqp_url and not kind and not data:
        return GivenBroker(settings.amqp_url.get_secret_value(), settings.management_url)
    return private(settings, kind=kind, data=data, say=say)


def private(
    settings: BrokerSettings,
    *,
    kind: Kind | None = None,
    data: Path | None = None,
    say: Say = lambda _: None,
) -> RunningBroker:
    """A broker of our own, whatever `AMQP_URL` says."""
    if data and kind == "docker":
        raise BrokerError("A data folder is for a local broker: leave --data or --kind docker out.")
    if not data and kind != "local" and _docker_can(settings, kind, say):
        say(f"Starting RabbitMQ in Docker ({settings.image}).")
        return DockerBroker(settings.image, timeout=settings.start_timeout).start()
    broker = LocalBroker(data=data, timeout=settings.start_timeout, say=say)
    say("Starting a private RabbitMQ on this machine.")
    return broker.start()


def _docker_can(settings: BrokerSettings, kind: Kind | None, say: Say) -> bool:
    """Whether Docker is there with the image; where it was asked for by name it must be."""
    if not docker.answers():
        if kind == "docker":
            raise BrokerError("No Docker engine answers: start Docker, or use --kind local.")
        return False
    try:
        docker.ensure_image(settings.image, say)
    except BrokerError as error:
        if kind == "docker":
            raise
        say(f"{error} Going on without Docker.")
        return False
    return True
