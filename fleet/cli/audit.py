"""`fleet audit`: reckons every event of a fleet, running or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from fleet.amqp.reasons import parse
from fleet.audit.auditor import Auditor, Findings, Subject
from fleet.audit.books import Books
from fleet.audit.ids import unpack
from fleet.audit.reckoning import Kind, Tally
from fleet.audit.verdict import verdict
from fleet.broker import Management
from fleet.cli.load import load_service
from fleet.cli.options import as_json, of_services
from fleet.core.errors import BrokerError, SettingsError
from fleet.settings import load
from fleet.store import StoreSettings, bindings, open_store
from topology.management import management_url
from topology.model import ServiceLayout
from topology.patterns import matches
from topology.settings import TopologySettings
from workers.registry import Service

NAMED: Final = 20
PATIENCE_S: Final = 6.0
"""Longer than the management API's figures lag."""
CLASSES: Final = ("done", "skipped", "expired", "failed", "waiting", "unrouted", "unaccounted")
ROADS: Final = ("published", "shed", "quarantined", "missed", "unaccounted")


@click.command()
@of_services("The services to audit.")
@click.option("--witness", metavar="URL", help="A stand-in platform whose ledger is to agree.")
@as_json
@click.pass_context
def command(ctx: click.Context, handlers: str, witness: str | None, *, as_json: bool) -> None:
    """Reckon every event: published, shed, missed; done, failed, waiting; and name what is lost.

    Reads the log, the journal and the queues at AMQP_URL and STORE_URL; changes nothing.
    The last line says what it comes to. Exit code 0 only if nothing is unaccounted and nothing
    was done twice, else 1; messages in the log without a readable id are told and change nothing.
    """
    subjects = [subject(each) for each in handlers.split(",")]
    findings = asyncio.run(_audit(subjects, witness))
    if as_json:
        click.echo(json.dumps(report(findings)))
    else:
        show(findings, Console())
    ctx.exit(0 if findings.is_clean else 1)


def subject(text: str) -> Subject:
    """The service at `module:name` as an audit sees it. Raises SettingsError."""
    service = load_service(text)
    layout = service.layout()
    return Subject(layout, _kinds(service, layout))


def _kinds(service: object, layout: ServiceLayout) -> Callable[[str], Kind]:
    def kind(event_type: str) -> Kind:
        if not any(matches(pattern, event_type) for pattern in layout.fed):
            return ""
        handler = service.find(event_type) if isinstance(service, Service) else None
        return "pure" if handler is not None and handler.effect == "pure" else "journaled"

    return kind


async def _audit(subjects: Sequence[Subject], witness: str | None) -> Findings:
    settings = load(TopologySettings)
    store = open_store(load(StoreSettings).url, create=False)
    await store.open()
    try:
        known = await store.read(bindings.services)
        for name in (each.name for each in subjects if known and each.name not in known):
            # Nothing can have come to it: what is for others would be held against it.
            raise SettingsError(
                f"There is no service {name} in this store, known are {', '.join(known)};"
                " correct --handlers, or run `fleet topology apply`."
            )
        async with Auditor(
            settings.amqp_url, store, subjects, unacked=unacked(settings), witness=witness
        ) as auditor:
            return await auditor.patient(PATIENCE_S)
    finally:
        await store.close()


def unacked(settings: TopologySettings) -> Callable[[Sequence[str]], int | None]:
    """Asks the management API, where there is one, what consumers have in their hands."""
    url = management_url(settings.amqp_url, settings.management_url)
    vhost = parse(settings.amqp_url).path[1:] or "/"

    def count(queues: Sequence[str]) -> int | None:
        if url is None:
            return None
        try:
            found = Management(url, settings.amqp_url).queues(vhost)
        except BrokerError:
            return None
        ours = set(queues)
        return sum(int(q.get("messages_unacknowledged", 0)) for q in found if q.get("name") in ours)

    return count


def report(findings: Findings) -> dict[str, Any]:
    """Everything, with every unaccounted id."""
    reckoning, books = findings.reckoning, findings.books
    return {
        "emitted": reckoning.emitted,
        **{road: reckoning.roads[road] for road in ROADS[:-1]},
        **_tally(reckoning.fleet),
        "elsewhere": reckoning.fleet.counts["elsewhere"],
        "unaccounted": [unpack(event) for event in reckoning.unaccounted],
        "unreadable": findings.unreadable,
        "doubled": findings.doubled,
        "services": [
            {
                "name": name,
                "published": tally.published,
                **_tally(tally),
                "shed": tally.counts["shed"],
                "by_count": tally.by_count,
                "unaccounted": [unpack(event) for event in tally.unaccounted],
            }
            for name, tally in reckoning.services.items()
        ],
        "missed_ranges": [
            {"after": after, "before": before, "events": count}
            for after, before, count in books.missed
        ],
        "effects": books.effects_by_state,
        "effects_by_kind": books.effects,
        "positions": books.positions,
        "archived": books.archived,
        "queues": {queue: depth.ready for queue, depth in findings.depths.items() if depth.ready},
    }


def _tally(tally: Tally) -> dict[str, int]:
    return {each: tally.counts[each] for each in CLASSES[:-1]}


def show(findings: Findings, console: Console) -> None:
    """The same for a person."""
    reckoning, books = findings.reckoning, findings.books
    console.print(_roads(findings))
    console.print(_services(findings))
    for name, tally in reckoning.services.items():
        if tally.by_count:
            console.print(f"{name}: {tally.by_count:,} done are known by count: pure, no journal.")
    for after, before, count in books.missed:
        known = "an unknown number of" if count is None else f"{count:,}"
        console.print(f"missed: {known} events after {after or 'the start'} and before {before}")
    for title, counts in _counts(books):
        console.print(f"{title}: " + ", ".join(f"{n:,} {what}" for what, n in counts.items()))
    for event in reckoning.unaccounted[:NAMED]:
        console.print(f"unaccounted: {unpack(event)}")
    if len(reckoning.unaccounted) > NAMED:
        console.print(f"… and {len(reckoning.unaccounted) - NAMED:,} more: see --json")
    console.print(verdict(findings), soft_wrap=True)


def _counts(books: Books) -> Iterator[tuple[str, Mapping[str, int]]]:
    """What there is to count in a line each: a title, and how many of what."""
    yield from ((f"effects of {kind}", states) for kind, states in books.effects.items())
    if books.positions:
        yield "positions", books.positions
    if books.archived:
        yield "archived", {f"out of {queue}": n for queue, n in books.archived.items()}


def _roads(findings: Findings) -> Table:
    table = Table("emitted", *ROADS, title="How events left their source")
    roads = findings.reckoning.roads
    table.add_row(f"{findings.reckoning.emitted:,}", *(f"{roads[road]:,}" for road in ROADS))
    return table


def _services(findings: Findings) -> Table:
    table = Table(title="What became of them")
    services = findings.reckoning.services
    for title in ("", *services):
        table.add_column(title, justify="right" if title else "left", overflow="fold")
    table.add_row("published", *(f"{tally.published:,}" for tally in services.values()))
    table.add_section()
    for each in CLASSES:
        table.add_row(each, *(f"{tally.counts[each]:,}" for tally in services.values()))
    return table
