"""`fleet handlers`: which handlers work, which are halted, and how to let those go on."""

from __future__ import annotations

from functools import partial
from typing import Any

import click
from rich.table import Table

from fleet import clock
from fleet.cli import failed_options, failed_shown, stored
from fleet.cli.options import as_json
from fleet.core.errors import SettingsError
from fleet.store import Tx, controls, replicas
from fleet.store.controls import Halt
from replay.entry import iso


@click.group()
def command() -> None:
    """List handlers, and release one that was halted.

    A handler is halted for the whole fleet when it failed in the same way again and again
    (HALT_AFTER). Its events are not failed any more but wait, until it is released.
    """


@command.command("list")
@as_json
def list_(*, as_json: bool) -> None:
    """Every handler of the live workers, and every halted one."""
    found = stored.asked(_handlers)
    if as_json:
        failed_shown.say_json(found)
        return
    if not found:
        click.echo("No worker is live, and no handler is halted.")
        return
    table = Table("service", "handler", "workers", "state", "since", "reason")
    for each in found:
        since = iso(each["since_ms"]) if each["since_ms"] else ""
        cells = (each["service"], each["handler"], str(each["workers"]), each["state"], since)
        table.add_row(*map(failed_shown.cell, (*cells, each["reason"])))
    failed_shown.console().print(table)


@command.command()
@click.argument("name")
@click.option("--service", default="", metavar="NAME", help="Where services share a name.")
@click.option("--note", default="", help="Why; it is written down.")
@stored.by
@as_json
def release(name: str, service: str, note: str, by: str | None, *, as_json: bool) -> None:
    """Let a halted handler work again, in every worker within two seconds.

    What failed before the halt is in the failed queue: `fleet failed run` sends it again.
    """
    who = by or failed_options.user()
    lifted = stored.done(partial(_release, name=name, service=service, operator=who, note=note))
    if as_json:
        failed_shown.say_json(lifted)
    else:
        click.echo(f"{lifted.handler} of {lifted.service} is released.")


def _handlers(tx: Tx) -> list[dict[str, Any]]:
    now_ms = clock.now_ms()
    halts = {(each.service, each.handler): each for each in controls.every(tx).halts}
    workers = dict.fromkeys(halts, 0)
    for replica in replicas.every(tx):
        if replica.kind == "worker" and replica.is_live(now_ms):
            for name in replica.pulse.handlers:
                workers[replica.service, name] = workers.get((replica.service, name), 0) + 1
    return [_line(*at, count, halts.get(at)) for at, count in sorted(workers.items())]


def _line(service: str, handler: str, workers: int, halt: Halt | None) -> dict[str, Any]:
    return {
        "service": service,
        "handler": handler,
        "workers": workers,
        "state": "halted" if halt else "working",
        "since_ms": halt.at_ms if halt else 0,
        "reason": halt.reason if halt else "",
        "fingerprint": halt.fingerprint if halt else "",
    }


def _release(tx: Tx, name: str, service: str, operator: str, note: str) -> Halt:
    halts = [
        each
        for each in controls.every(tx).halts
        if each.handler == name and service in ("", each.service)
    ]
    if not halts:
        raise SettingsError(f"No handler {name} is halted; see `fleet handlers list`.")
    if len(halts) > 1:
        services = ", ".join(each.service for each in halts)
        raise SettingsError(f"{name} is halted in {services}; name one with --service.")
    now_ms = clock.now_ms()
    return controls.release(tx, halts[0].service, name, operator=operator, note=note, now_ms=now_ms)
