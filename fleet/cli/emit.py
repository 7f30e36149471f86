"""`fleet emit`: one event by hand."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from functools import partial
from typing import Any, Final

import click
import msgspec

from fleet import clock
from fleet.amqp.connection import Link
from fleet.amqp.exchanges import require
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.cli import failed_options, failed_shown, stored
from fleet.cli.options import as_json
from fleet.core.envelope import event_headers
from fleet.core.errors import BrokerError, EnvelopeError, PublishError, SettingsError
from fleet.core.events import MAX_BYTES, Event, read_event, write_event
from fleet.core.payloads import LIVE_ONLY
from fleet.core.ulid import ENTROPY_BYTES, is_ulid, make_ulid, ulid_ms
from fleet.settings import PlatformSettings, SigningSettings, load
from fleet.store import Tx, archive, bindings
from fleet.store.archive import Intervention
from fleet.telemetry import log as logs
from topology import names
from topology.settings import TopologySettings

REFUSAL_S: Final = 1.0
"""How long after a lost channel its reason may take to be known."""


@click.command()
@click.argument("event_type", metavar="TYPE")
@click.argument("payload", default="{}", metavar="[PAYLOAD]")
@click.option("--agent", metavar="NAME", help="Whose event it is. [PF_AGENT_ID]")
@click.option("--id", "event_id", metavar="ULID", help="Under this id, of this id's time. [new]")
@click.option("--note", default="", help="Why; it is written down.")
@stored.by
@as_json
def command(
    event_type: str,
    payload: str,
    *,
    agent: str | None,
    event_id: str | None,
    note: str,
    by: str | None,
    as_json: bool,
) -> None:
    """Publish one event by hand; once the broker has confirmed it, print its id.

    PAYLOAD is a JSON object; "-" reads it from standard input. Every service that binds the TYPE
    gets the event, and handles what was published twice under one id once. Who did it, when and
    why is written down. It needs the rights of the bridge on the broker.
    """
    event = _event(event_type, payload, agent, event_id)
    body = write_event(event)
    is_wanted = stored.done(partial(_noted, event=event, who=by or failed_options.user(), why=note))
    logs.configure(level="critical")
    asyncio.run(_publish(event, body))
    if as_json:
        failed_shown.say_json({"id": event.event_id, "wanted": is_wanted})
        return
    click.echo(event.event_id)
    if not is_wanted:
        click.echo(f"No service takes {event_type}: it waits in {names.UNROUTED}.", err=True)


def _event(event_type: str, payload: str, agent: str | None, event_id: str | None) -> Event:
    """The event that is meant. Raises SettingsError where nobody could read it."""
    if event_type in LIVE_ONLY:
        raise SettingsError(f"{event_type} is the market's alone; `fleet sandbox` makes one up.")
    if event_id is not None and not is_ulid(event_id):
        raise SettingsError("--id is no ULID: 26 characters, as another event's id has them.")
    now_ms = clock.now_ms()
    event_id = event_id or make_ulid(now_ms, os.urandom(ENTROPY_BYTES))
    fields = {
        "eventId": event_id,
        "type": event_type,
        "agentId": agent or _agent(),
        "payload": msgspec.Raw(_read(payload)),
        "ts": ulid_ms(event_id),
    }
    try:
        return read_event(msgspec.json.encode(fields), now_ms)
    except EnvelopeError as error:
        raise SettingsError(f"Nobody could read this event: {error}.") from None


def _read(payload: str) -> bytes:
    """The payload's text. Raises SettingsError where it is no JSON object."""
    text = sys.stdin.buffer.read(MAX_BYTES + 1) if payload == "-" else os.fsencode(payload)
    try:
        msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise SettingsError("PAYLOAD is no JSON object; write '{\"name\": 1}'.") from None
    return text


def _agent() -> str:
    agent = load(PlatformSettings).agent_id
    if not agent:
        raise SettingsError("Say whose event it is: name the agent with --agent, or PF_AGENT_ID.")
    return agent


def _noted(tx: Tx, event: Event, who: str, why: str) -> bool:
    """Write down who does it; whether any service is fed with it."""
    at_ms = clock.now_ms()
    archive.note(tx, [Intervention(at_ms, who, "emit", names.INGEST, event.event_id, note=why)])
    return bindings.wants(tx, event.type)


async def _publish(event: Event, body: bytes) -> None:
    """Return once it is confirmed. Raises BrokerError, TopologyError."""
    keys, headers = load(SigningSettings).keys(), event_headers(event)
    if keys is not None:
        headers = keys.stamped(headers, body)
    link = Link(load(TopologySettings).amqp_url, "fleet emit", on_connect=require((names.INGEST,)))
    async with link, ConfirmedPublisher(link, channels=1) as publisher:
        try:
            await publisher.publish(names.INGEST, event.type, body, headers=headers)
        except PublishError as error:
            with suppress(TimeoutError):
                async with asyncio.timeout(REFUSAL_S):
                    await publisher.refused()
            raise BrokerError(
                f"{error} Run it again with --id {event.event_id}: it is handled once."
            ) from None
