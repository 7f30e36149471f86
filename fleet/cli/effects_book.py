"""`fleet effects close` and `settle`: an operator's word on the position that an order opened."""

from __future__ import annotations

import asyncio
import os
from decimal import Decimal, InvalidOperation
from functools import partial

import click
import msgspec

from agent.keys import close_key
from agent.settings import load_settings
from fleet import clock
from fleet.cli import failed_options, failed_shown, stored
from fleet.cli.failed_options import Where
from fleet.cli.options import as_json, of_service
from fleet.core.envelope import event_headers
from fleet.core.errors import BrokerError, PublishError, SettingsError
from fleet.core.events import Event, write_event
from fleet.core.payloads import MONEY_LIMIT, CloseRequested
from fleet.core.ulid import make_ulid
from fleet.settings import SigningSettings, load
from fleet.store import archive, ledger, paper, positions
from fleet.store.archive import Intervention
from fleet.store.positions import Position
from replay.place import Place
from replay.sending import open_publisher
from topology import names

TYPE = "order.close_requested"

handlers = of_service("The service that has them.")


class Asked(msgspec.Struct, frozen=True):
    """A closing that was asked for: its own effect key, and what it is to close."""

    key: str
    event_id: str
    position_id: str
    position: str = ""


def _money(_ctx: click.Context, _option: click.Parameter, text: str) -> Decimal:
    try:
        amount = Decimal(text)
        if -MONEY_LIMIT < amount < MONEY_LIMIT:
            return amount
    except InvalidOperation:
        pass
    raise click.BadParameter(f"{text!r} is no amount of USDC, like -3.20.")


@click.command()
@click.argument("key")
@click.option("--note", required=True, help="Why.")
@click.option("--unbooked", is_flag=True, help="KEY is the venue's id of what the book lacks.")
@handlers
@stored.by
@failed_options.yes
@as_json
def close(
    key: str,
    note: str,
    handlers: str,
    by: str | None,
    *,
    unbooked: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Have the workers close the position that the order of this effect opened.

    It is an effect of its own, whose key is printed, and goes to the failed queue where the venue
    refuses. A position that is over, and of which nobody knows what it gained, is asked about.
    """
    where = Where(handlers, by, unrouted=False)
    if where.service.find(TYPE) is None:
        raise SettingsError(f"{where.service.name} does not handle {TYPE}; name another service.")
    if not yes:
        click.confirm(f"Close {key} at the venue?", abort=True, err=True)
    asked = where.work(partial(_ask, key=key, note=note, unbooked=unbooked))
    if as_json:
        failed_shown.say_json(asked)
        return
    click.echo(f"{asked.position_id} is to be closed; `fleet effects show {asked.key}` says more.")


@click.command()
@click.argument("key")
@click.option(
    "--gained", required=True, metavar="USDC", callback=_money, help="A loss is negative."
)
@click.option("--note", required=True, help="How you know.")
@handlers
@stored.by
@as_json
def settle(
    key: str, gained: Decimal, note: str, handlers: str, by: str | None, *, as_json: bool
) -> None:
    """Say what a position gained that is over, where the venue cannot tell."""
    where = Where(handlers, by, unrouted=False)
    write = partial(
        ledger.settle,
        key=key,
        gained=gained,
        note=note,
        operator=where.operator,
        now_ms=clock.now_ms(),
    )
    held = where.work(lambda place, _: place.store.run(write))
    if as_json:
        failed_shown.say_json(held)
    else:
        click.echo(f"{held.pair} {held.direction} under {key} gained {held.pnl} USDC.")


async def _ask(place: Place, _stop: asyncio.Event, *, key: str, note: str, unbooked: bool) -> Asked:
    """Note who asks, then publish; whoever dies in between has asked for nothing."""
    now_ms = clock.now_ms()
    held = await place.store.read(partial(positions.get, key=key))
    agent, venue_id = _unbooked(key, held) if unbooked else _booked(key, held)
    wish = CloseRequested(
        key=close_key(f"{venue_id}@{now_ms}"),
        position="" if unbooked else key,
        pair=held.pair if held else "",
        reason=note,
        venue_id=venue_id,
    )
    event = Event(make_ulid(now_ms, os.urandom(10)), TYPE, agent, msgspec.to_builtins(wish), now_ms)
    was = held.state if held else "unbooked"
    said = Intervention(now_ms, place.operator, "close", archive.EFFECTS, key, was, "", note)
    await place.store.run(lambda tx: archive.note(tx, [said]))
    await _publish(place, event)
    return Asked(wish.key, event.event_id, venue_id, wish.position)


async def _publish(place: Place, event: Event) -> None:
    body, headers = write_event(event), event_headers(event)
    if (keys := load(SigningSettings).keys()) is not None:
        headers = keys.stamped(headers, body)
    try:
        async with open_publisher(place.url) as publisher:
            home = names.work_queue(place.service.name)
            await publisher.publish(names.REDELIVER, home, body, headers=headers)
    except PublishError as error:
        raise BrokerError(f"It is not known to be sent ({error}); run it again.") from None


def _booked(key: str, held: Position | None) -> tuple[str, str]:
    """Whose position it is, and the venue's id of it."""
    if held is None:
        raise SettingsError(
            f"The book has no position under {key}; with --unbooked it is the venue's id of one."
        )
    if held.state == "reserved":
        raise SettingsError(
            f"Whether {key} was opened is not known; `fleet effects retry {key}` asks the venue."
        )
    if held.state == "released" or held.pnl is not None or not held.venue_id:
        raise SettingsError(f"The position under {key} is over; nothing is to be closed.")
    return held.agent.removesuffix(paper.BOOK), held.venue_id


def _unbooked(key: str, held: Position | None) -> tuple[str, str]:
    if held is not None:
        raise SettingsError(f"The book has a position under {key}; leave --unbooked out.")
    return load_settings().agent(), key
