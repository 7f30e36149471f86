"""`fleet doctor`: can the fleet work, and what is to be done where it cannot."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any, Final

import click
from rich.markup import escape

from agent.settings import AgentSettings
from fleet.cli import failed_shown
from fleet.cli.load import load_services
from fleet.cli.options import as_json
from fleet.cli.planned import planned
from fleet.doctor.examine import Case, examine
from fleet.doctor.finding import Finding, is_well
from fleet.settings import load
from fleet.store import StoreSettings
from fleet.telemetry import log as logs
from topology.model import QueueType
from topology.plan import plan
from topology.settings import TopologySettings
from workers.registry import Service
from workers.settings import WorkerSettings

_MARKS: Final = {"ok": "[green]ok  [/]", "warn": "[yellow]warn[/]", "fail": "[red]FAIL[/]"}


@click.command()
@planned
@click.option(
    "--no-canary",
    is_flag=True,
    help="Publish nothing: leave out whether failed and delayed messages arrive.",
)
@as_json
@click.pass_context
def command(
    ctx: click.Context, handlers: str, queue_type: QueueType, *, no_canary: bool, as_json: bool
) -> None:
    """Look at broker, store, clocks, workers and bridge; exit code 1 where something fails.

    One canary goes through the failed queue and one through the first retry bucket of each
    service: the first is taken back, workers skip the second. No other message is touched.
    """
    logs.configure(level="critical")
    case = _case(handlers, queue_type, canaries=not no_canary)
    findings = asyncio.run(examine(case))
    if as_json:
        failed_shown.say_json(
            {"well": is_well(findings), "findings": [asdict(each) for each in findings]}
        )
    else:
        _show(findings)
    ctx.exit(0 if is_well(findings) else 1)


def _case(handlers: str, queue_type: QueueType, *, canaries: bool) -> Case:
    services = load_services(handlers)
    topology, worker, agent = load(TopologySettings), load(WorkerSettings), load(AgentSettings)
    return Case(
        plan=plan([each.layout() for each in services], queue_type=queue_type),
        amqp_url=topology.amqp_url,
        management_url=topology.management_url,
        store_url=load(StoreSettings).url,
        longest_s={each.layout().name: _longest(each) for each in services},
        prefetch=worker.first_prefetch,
        concurrency=worker.concurrency,
        # Who has no agent of the platform has nothing to ask there.
        venue_url=agent.api_url if agent.agent_id else "",
        venue_tls=agent.tls(),
        keys=worker.keys(),
        canaries=canaries,
    )


def _longest(service: Any) -> float:
    """The longest deadline; a plain function has none."""
    handlers = service.handlers.values() if isinstance(service, Service) else ()
    return max((each.deadline for each in handlers if each.is_async), default=0.0)


def _show(findings: list[Finding]) -> None:
    console = failed_shown.console()
    for each in findings:
        text = escape(failed_shown.safe(each.text))
        console.print(f"{_MARKS[each.level]} [dim]{each.check:11}[/] {text}", soft_wrap=True)
        if each.fix and each.level != "ok":
            console.print(f"     {'':11} [dim]{escape(each.fix)}[/]", soft_wrap=True)
