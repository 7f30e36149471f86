"""`fleet broker`: a private RabbitMQ until interrupted."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn
from urllib.parse import quote

import click

from fleet.broker import RunningBroker, provide
from fleet.broker.handshake import Address
from fleet.broker.settings import Kind

LOOK_S: Final = 1.0
LOOKS: Final = 3
"""In a row without an answer, after which a broker counts as gone."""


@click.command()
@click.option(
    "--kind",
    type=click.Choice(["docker", "local"]),
    help="Run it in Docker, or as a server on this machine. Without it: what FLEET_BROKER says, "
    "else AMQP_URL's if set, else Docker if an engine answers, else local.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep a local broker's data, log and configuration in this folder and use them again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the addresses as one JSON object.")
@click.pass_context
def command(ctx: click.Context, kind: Kind | None, data: Path | None, *, as_json: bool) -> None:
    """Run a private RabbitMQ on 127.0.0.1 until Ctrl-C or SIGTERM.

    Everything that it needs is its own (ports, node name, folder) and is gone at the end. Where
    AMQP_URL names a broker and nothing forces another, that one is checked and left alone.
    Exit code 1 if the broker ends by itself.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        # SIGINT too: a shell starts what it puts in the background with it ignored.
        signal.signal(number, _interrupt)
    try:
        with provide(kind=kind, data=data, say=_say) as broker:
            click.echo(_as_json(broker) if as_json else _as_text(broker))
            _until_gone(broker)
    except KeyboardInterrupt:
        _say("Stopped.")
    else:
        _say("fleet: RabbitMQ has ended by itself; start it again.")
        ctx.exit(1)


def _until_gone(broker: RunningBroker) -> None:
    silent = 0
    while silent < LOOKS:
        time.sleep(LOOK_S)
        silent = 0 if broker.alive() else silent + 1


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - signal's
    raise KeyboardInterrupt


def _say(sentence: str) -> None:
    click.echo(sentence, err=True)


def _shown(broker: RunningBroker) -> str:
    """The URL; a given broker's without its password."""
    if broker.kind != "given":
        return broker.amqp_url
    at = Address.parse(broker.amqp_url)
    return f"{'amqps' if at.tls else 'amqp'}://{quote(at.user)}:***@{at}/{quote(at.vhost, safe='')}"


def _as_json(broker: RunningBroker) -> str:
    answer = {
        "amqp_url": _shown(broker),
        "management_url": broker.management_url,
        "version": broker.version,
        "kind": broker.kind,
    }
    return json.dumps(answer)


def _as_text(broker: RunningBroker) -> str:
    login = "" if broker.kind == "given" else "  (guest, guest)"
    return "\n".join(
        (
            f"RabbitMQ {broker.version} ({broker.kind}) is ready; Ctrl-C ends this.",
            f"AMQP        {_shown(broker)}",
            f"Management  {broker.management_url or 'none'}{login}",
        )
    )
