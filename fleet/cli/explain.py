"""`fleet explain`: the story of one event, or of one effect key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from fleet.audit.story import Story, Told, tell
from fleet.cli.failed_shown import safe, say_json
from fleet.cli.options import as_json
from fleet.core.errors import SettingsError
from fleet.settings import load
from fleet.store import StoreSettings, open_store
from fleet.store.api import Effect
from fleet.store.archive import plain
from fleet.store.decisions import Decision
from replay.entry import iso
from topology.settings import TopologySettings

HOUR_MS = 3_600_000

_encode = msgspec.json.Encoder(decimal_format="string").encode


@click.command()
@click.argument("what", metavar="EVENT-ID|KEY")
@click.option("--no-log", is_flag=True, help="Ask the store alone; needs no broker.")
@click.option(
    "--hours",
    type=click.FloatRange(0, 24 * 30),
    default=1.0,
    show_default=True,
    help="How far behind the event the log is read.",
)
@as_json
def command(what: str, hours: float, *, no_log: bool, as_json: bool) -> None:
    """Tell the story of an event from its arrival to its effect, or of an effect by its key.

    What the log has of it and of the events that it led to, what each service did with them, the
    strategy's reason, the effect and its attempts, and what operators did. Changes nothing.
    """
    found = asyncio.run(_tell(what, None if no_log else int(hours * HOUR_MS)))
    if found.is_empty:
        raise SettingsError(
            f"Nothing is known of {safe(what)[:130]}; is it an event id or an effect key?"
        )
    if as_json:
        say_json(_plain(found))
        return
    for line in lines(found):
        click.echo(safe(line))


async def _tell(what: str, later_ms: int | None) -> Story:
    store = open_store(load(StoreSettings).url, create=False)
    await store.open()
    try:
        if later_ms is None:
            return await tell(store, None, what)
        return await tell(store, load(TopologySettings).amqp_url, what, later_ms)
    finally:
        await store.close()


def _plain(found: Story) -> Any:
    value = plain(found)
    for told, event in zip(value["events"], found.events, strict=True):
        told["event"] = msgspec.json.decode(_encode(event.event)) if event.event else None
    return value


def lines(found: Story) -> Iterator[str]:
    """The story for a person, in the order in which it happened."""
    for told in found.events:
        yield from _event_lines(told)
    for decision in found.decisions:
        yield from _decision_lines(decision)
    for effect in found.effects:
        yield from _effect_lines(effect)
    for done in found.interventions:
        yield f"operator  {iso(done.at_ms)} {done.operator}: {done.action} {done.note}".rstrip()


def _event_lines(told: Told) -> Iterator[str]:
    event = told.event
    kind = event.type if event else "(not in the log)"
    yield f"{told.event_id}  {kind}"
    if event is not None:
        yield f"  happened  {iso(event.ts)}, agent {event.agent_id}"
        yield f"  payload   {_encode(event.payload).decode()[:2000]}"
    if told.parent:
        yield f"  parent    {told.parent}"
    if told.copies > 1:
        yield f"  log       {told.copies} copies; each service handles one"
    for row in told.journal:
        replay = f", replay {row.replay_count}" if row.replay_count > 0 else ""
        where = f"{row.service}/{row.handler or '-'} by {row.worker}"
        reason = f": {row.reason}" if row.reason else ""
        yield (
            f"  {row.outcome:<9} {iso(row.at_ms)} {where}, attempt {row.attempt}{replay},"
            f" {row.age_ms} ms old{reason}"
        )
    if event is not None and not told.journal:
        yield "  waiting   no service has an end of it in its journal"
    for done in told.interventions:
        yield f"  operator  {iso(done.at_ms)} {done.operator}: {done.action} {done.note}".rstrip()
    for kept in told.archived:
        yield f"  archive   {kept.kind} out of {kept.queue} by {kept.operator}: {kept.note}"
    if told.alert is not None:
        yield f"  alert     {told.alert.severity}: {told.alert.title}; see {told.alert.runbook}"


def _decision_lines(decision: Decision) -> Iterator[str]:
    yield f"{decision.event_id}  decision of {decision.strategy}, mode {decision.mode}"
    yield f"  signal    {decision.pair} {decision.direction} at {iso(decision.ts_ms)}"
    yield f"  inputs    {decision.inputs}"
    yield f"  order     {decision.order_id} under key {decision.trade_key}"
    yield f"  became    {decision.outcome}"


def _effect_lines(effect: Effect) -> Iterator[str]:
    yield f"effect {effect.key}  {effect.kind}: {effect.state}, {effect.attempts} attempts"
    yield f"  last      {iso(effect.at_ms)}" + (f", {effect.error}" if effect.error else "")
    if effect.result:
        yield f"  result    {effect.result[:2000]}"
