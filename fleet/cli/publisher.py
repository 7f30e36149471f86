"""`fleet publisher`: the bridge from the stream onto the exchange."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import click
import structlog
import uvloop

from fleet.amqp.connection import Link
from fleet.amqp.exchanges import require
from fleet.amqp.publisher import ConfirmedPublisher
from fleet.cli.tracing import bridge_traces
from fleet.doctor import start as at_start
from fleet.settings import load
from fleet.store import leases
from fleet.store.factory import open_store, place_of
from fleet.store.presence import Presence
from fleet.store.settings import StoreSettings
from fleet.store.watched import Watched
from fleet.telemetry import log as logs
from fleet.telemetry.health import served
from fleet.telemetry.settings import HealthSettings, LogSettings
from publisher.beside import Beside, OwnEvents
from publisher.bridge import Bridge
from publisher.lease import Leadership
from publisher.pulse import beating
from publisher.schedule import built_in
from publisher.settings import BridgeSettings, load_settings
from publisher.sources.clock import Clock, read_schedules
from publisher.sources.prices import Newest, PriceFill
from publisher.sources.stream import StreamSource
from topology import names

log = structlog.get_logger("publisher")


@click.command()
@click.option("--log-json", is_flag=True, help="Write log lines as JSON objects.")
def command(*, log_json: bool) -> None:
    """Run the bridge: events from the stream onto the exchange, until SIGTERM or SIGINT.

    One bridge per agent leads; others stand by and take over. Set PF_AGENT_ID and PF_AGENT_KEY
    (or PF_AGENT_KEY_FILE); PF_STREAM_URL, AMQP_URL and STORE_URL have defaults.
    """
    logs.configure_from(load(LogSettings), json=log_json)
    settings = load_settings()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(settings, settings.agent(), settings.key()))


async def _run(settings: BridgeSettings, agent: str, key: str) -> None:
    source = StreamSource(
        settings.stream_url,
        key,
        agent,
        topics=settings.topic_list(),
        silence_s=settings.silence_s,
        tls=settings.tls(),
    )
    schedules = built_in(settings.health_s, settings.reconcile_s)
    path = settings.schedules
    if path is not None and path != Path():  # an empty variable is no file
        schedules += read_schedules(path)
    holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    keys = settings.keys()
    async with AsyncExitStack() as stack:
        url = load(StoreSettings).url
        store = Watched(open_store(url))
        await store.open()
        stack.push_async_callback(store.close)
        await at_start.look(settings.amqp_url, store, url)
        link = Link(
            settings.amqp_url,
            "flea-fleet bridge",
            on_connect=require((names.INGEST, names.QUARANTINE)),
        )
        await stack.enter_async_context(link)
        publisher = ConfirmedPublisher(link, window=settings.window)
        await stack.enter_async_context(publisher)
        name = f"{leases.BRIDGES}{agent}"
        leadership = Leadership(store, name, holder, ttl_s=settings.lease_ttl_s)
        newest = Newest()
        own = OwnEvents(publisher, store, holder, partitions=settings.partitions, keys=keys)
        beside: list[Beside] = [Clock(own, store, agent, schedules)]
        if settings.fill_s:
            beside.append(
                PriceFill(
                    own,
                    newest,
                    url=settings.prices_url(),
                    agent=agent,
                    key=key,
                    every_s=settings.fill_s,
                    tls=settings.tls(),
                )
            )
        bridge = Bridge(
            source,
            publisher,
            store,
            leadership,
            settings.limits(),
            beside=beside,
            ticked=newest.note,
            keys=keys,
            traces=await stack.enter_async_context(bridge_traces(holder)),
        )
        bridge.health.check("store", lambda: store.trouble)
        await stack.enter_async_context(served(load(HealthSettings), bridge.health))
        presence = Presence(store, "bridge", holder, source.name)
        await stack.enter_async_context(beating(presence, bridge.vitals))
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, bridge.stop)
        # The absolute path: a relative STORE_URL means another store in another folder.
        log.info(
            "bridge starts", source=source.name, store=place_of(url), lanes=settings.partitions
        )
        await bridge.run()
    log.info("bridge stopped")
