"""`fleet resume`: let the workers have again what was paused."""

from __future__ import annotations

from functools import partial

import click

from fleet import clock
from fleet.cli import failed_options, failed_shown, stored
from fleet.cli.options import as_json
from fleet.cli.pause import described, pattern, service
from fleet.core.errors import SettingsError
from fleet.store import Tx, controls
from fleet.store.controls import Pause


@click.command()
@service
@pattern
@click.option("--all", "everything", is_flag=True, help="Lift every pause.")
@click.option("--note", default="", help="Why; it is written down.")
@stored.by
@as_json
def command(
    service: str, pattern: str, note: str, by: str | None, *, everything: bool, as_json: bool
) -> None:
    """Lift the pause that the same options made, or all; workers go on within two seconds."""
    wanted = None if everything else (service, pattern)
    work = partial(_resume, wanted=wanted, operator=by or failed_options.user(), note=note)
    lifted, left = stored.done(work)
    if as_json:
        failed_shown.say_json({"lifted": lifted, "paused": left})
        return
    for each in lifted:
        click.echo(f"{described(each)} is resumed.")
    for each in left:
        click.echo(f"Still paused: {described(each)} {f'({each.note})' if each.note else ''}")


def _resume(
    tx: Tx, wanted: tuple[str, str] | None, operator: str, note: str
) -> tuple[tuple[Pause, ...], tuple[Pause, ...]]:
    found = controls.every(tx).pauses
    chosen = tuple(each for each in found if wanted in (None, (each.service, each.pattern)))
    if not chosen:
        paused = ", ".join(f"--service '{p.service}' --type '{p.pattern}'" for p in found)
        what = f"paused is {paused}" if found else "nothing is paused"
        raise SettingsError(f"There is no such pause: {what}.")
    now_ms = clock.now_ms()
    lifted = controls.resume(tx, chosen, operator=operator, note=note, now_ms=now_ms)
    return lifted, tuple(each for each in found if each not in chosen)
